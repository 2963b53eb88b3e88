"""Diagnosis of a diverged run: its batch with original ids, and the last good checkpoint."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.errors import DivergedError, TrainingError
from cove_dist.runs import CHECKPOINTS
from data_pipeline.batch import Batch
from data_pipeline.id_tables import read_original_ids
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import EpochIterator, StreamLoader

if TYPE_CHECKING:
    from cove_dist.training.progress import Progress

_SHOWN = 3  # ids per column in the message


def explained(
    error: DivergedError,
    loader: StreamLoader,
    position: Progress,
    rank: int,
    data: Path,
    schema: Schema,
    folder: Path | None,
) -> TrainingError:
    """Save the batch of the failed step; return the error extended by the batch and the last good checkpoint.

    The batch is read again, as steps are deterministic.

    Args:
        error: Error raised on every rank.
        loader: Loader of the training split.
        position: Progress of the run; the failed step is in the current epoch.
        rank: Rank of this process, whose part of the batch is saved.
        data: Folder of the prepared data.
        schema: Schema of the data.
        folder: Run folder; None: save nothing.
    """
    index = position.batches - 1 - (position.step - error.step)
    with closing(EpochIterator(loader.stream, position.epoch, index)) as batches:
        table = original_ids(next(batches), data, schema)
    ids = "; ".join(f"{name} {_few(table[name])}" for name in table.column_names if name != "label")
    text = f"{error} The batch of step {error.step} on rank {rank}: {table.num_rows} rows ({ids})"
    if folder is None:
        return TrainingError(text)
    path = folder / "not_finite" / f"step_{error.step:08d}" / f"rank_{rank}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    newest = CheckpointFolder(folder / CHECKPOINTS).newest()
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
    return pa.table(columns | {"label": pa.array(np.asarray(batch.labels))})


def _few(column: pa.ChunkedArray) -> str:
    ids = [value for row in column[:_SHOWN].to_pylist() for value in row]
    return ", ".join(map(str, ids[:_SHOWN])) + (", …" if len(column) > _SHOWN or len(ids) > _SHOWN else "")
