"""Diagnosis of a diverged run: its batch with original ids, and the last good checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cove_dist.errors import DivergedError, TrainingError
from data_pipeline.batch import Batch
from data_pipeline.id_tables import read_original_ids
from data_pipeline.schema import Schema

_SHOWN = 3  # ids per column in the message


def explained(
    error: DivergedError,
    batches: Sequence[Batch],
    rank: int,
    data: Path,
    schema: Schema,
    folder: Path | None,
    newest: Path | None,
    weights: Mapping[str, float],
) -> TrainingError:
    """Save the batches of the failed step; return the error extended by the batches and the last good checkpoint.

    Args:
        error: Error raised on every rank.
        batches: Batches of the failed step, several with gradient accumulation; this rank's part.
        rank: Rank of this process.
        data: Folder of the prepared data.
        schema: Schema of the data.
        folder: Run folder; None: save nothing.
        newest: Newest checkpoint of the run; None if there is none.
        weights: Weights in use, by key, that may be too large.
    """
    table = pa.concat_tables([original_ids(batch, data, schema) for batch in batches])
    ids = "; ".join(f"{name} {_few(table[name])}" for name in table.column_names if name != "label")
    large = ", ".join(f"{key} = {value}" for key, value in weights.items())
    advice = f" Weights that may be too large: {large}." if weights else ""
    what = "batch" if len(batches) == 1 else f"{len(batches)} batches"
    text = f"{error}{advice} The {what} of step {error.step} on rank {rank}: {table.num_rows} rows ({ids})"
    if folder is None:
        return TrainingError(text)
    path = folder / "not_finite" / f"step_{error.step:08d}" / f"rank_{rank}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    back = f"Last good checkpoint: {newest}" if newest is not None else "There is no checkpoint before it"
    return TrainingError(f"{text}, saved in {path}. {back}")


def original_ids(batch: Batch, data: Path, schema: Schema) -> pa.Table:
    """Return the original ids of a batch, a list per row and column (null for unseen ids), and its labels.

    Args:
        batch: Batch of B rows, on the CPU.
        data: Folder of the prepared data.
        schema: Schema of the data.
    """
    tables = {column.name: column.table_name for column in schema.categorical}
    columns: dict[str, pa.Array] = {}
    for name, column in batch.ids.to_dict().items():
        rows, offsets = np.asarray(column.values()), np.asarray(column.offsets())[: len(batch) + 1]
        ids = pa.array(rows)
        if name in tables:
            known = read_original_ids(data, tables[name])
            ids = known.take(pa.array(rows, mask=rows >= len(known)))
        columns[name] = pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), ids)
    return pa.table(columns | {"label": pa.array(list(np.asarray(batch.labels)))})


def _few(column: pa.ChunkedArray) -> str:
    ids = [value for row in column[:_SHOWN].to_pylist() for value in row]
    return ", ".join(map(str, ids[:_SHOWN])) + (", …" if len(column) > _SHOWN or len(ids) > _SHOWN else "")
