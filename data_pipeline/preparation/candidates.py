"""Implicit feedback: the histories of each split, and candidates to rank beside a positive of validation and test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.history import History, write_history
from data_pipeline.negatives import NegativeSampler
from data_pipeline.preparation.columns import ITEM, SPLIT, USER
from data_pipeline.preparation.encode import id_table
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.preparation.writer import BATCH_ROWS, row_groups
from data_pipeline.schema import CANDIDATES, SPLITS, Categorical

_CANDIDATES = 4  # second word of the random seed


def write_histories(workspace: Workspace, users: int, rows: dict[str, int], folder: Path) -> None:
    """Write ``folder/history/<split>`` for every split; see `data_pipeline.history`."""
    for number, split in enumerate(SPLITS):
        reader = workspace.connection.sql(f"""
            SELECT {id_table(USER)}.id, {id_table(ITEM)}.id
            FROM rows JOIN {id_table(USER)} ON {id_table(USER)}.original_id = rows.{USER}
                JOIN {id_table(ITEM)} ON {id_table(ITEM)}.original_id = rows.{ITEM}
            WHERE {SPLIT} = {number} ORDER BY ALL""").to_arrow_reader(BATCH_ROWS)
        pairs = (tuple(column.to_numpy() for column in batch.columns) for batch in reader)
        write_history(pairs, users, rows.get(split, 0), folder / "history" / split)


def with_candidates(
    rows: pa.RecordBatchReader, folder: Path, items: Categorical, count: int, seed: int, split: int
) -> pa.RecordBatchReader:
    """The rows of validation or test with a column `CANDIDATES`: the item, and `count` others for comparison.

    These are distinct items that the user has in no split, all equally likely.

    Users have enough of them: see `data_pipeline.preparation.saturation`.
    """
    sampler = NegativeSampler([History.load(folder, name) for name in SPLITS], items.num_ids)
    schema = rows.schema.append(pa.field(CANDIDATES, pa.list_(pa.int64())))

    def batches() -> Iterator[pa.RecordBatch]:
        for number, table in enumerate(row_groups(rows, BATCH_ROWS)):  # of a size of our own: it seeds the draws
            [batch] = table.combine_chunks().to_batches()
            user, item = (batch[name].to_numpy() for name in (USER, ITEM))
            rng = np.random.default_rng([seed, _CANDIDATES, split, number])
            drawn = np.column_stack([item, sampler.draw(user, count, rng, distinct=True)])
            offsets = np.arange(len(batch) + 1, dtype=np.int32) * (count + 1)
            lists = pa.ListArray.from_arrays(offsets, drawn.ravel())
            yield pa.record_batch([*batch.columns, lists], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())
