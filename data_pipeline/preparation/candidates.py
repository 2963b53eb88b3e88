"""Implicit feedback: interaction histories of each split, and candidates to rank with the positives of evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.history import History, history_path, write_history
from data_pipeline.parquet_files import BATCH_ROWS, row_groups
from data_pipeline.preparation.candidate_sampler import CandidateSampler
from data_pipeline.preparation.columns import ITEM, SPLIT, USER
from data_pipeline.preparation.encode import encoded, rows_with_ids
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import CANDIDATES, SPLITS, Categorical

_CANDIDATES = 4  # second word of the random seed


def write_histories(workspace: Workspace, users: int, rows: dict[str, int], folder: Path) -> None:
    """Write the interaction history of every split; see `data_pipeline.history`.

    Args:
        workspace: Workspace that holds ``rows`` and the id tables.
        users: Users of all splits.
        rows: The number of rows of each split.
        folder: The prepared folder.
    """
    for number, split in enumerate(SPLITS):
        reader = workspace.stream(f"""
            SELECT {encoded(USER)} AS {USER}, {encoded(ITEM)} AS {ITEM} FROM {rows_with_ids(USER, ITEM)}
            WHERE {SPLIT} = {number} ORDER BY {encoded(USER)}, {encoded(ITEM)}""")
        pairs = ((batch.column(0).to_numpy(), batch.column(1).to_numpy()) for batch in reader)
        write_history(pairs, users, rows.get(split, 0), history_path(folder, split))


def with_candidates(
    rows: pa.RecordBatchReader, folder: Path, items: Categorical, count: int, seed: int, split: int
) -> pa.RecordBatchReader:
    """Add to rows of validation or test a column `CANDIDATES`: the item of the row, and ``count`` other items.

    The other items are distinct, in no split of the user's history, and all equally likely. Every user has enough of
    them: see `data_pipeline.preparation.saturation`.

    Args:
        rows: Rows of the split, encoded.
        folder: The prepared folder, with its histories.
        items: The item column.
        count: Other items of each row.
        seed: Seed of the data set.
        split: Number of the split, part of the random seed.
    """
    sampler = CandidateSampler([History.load(folder, name) for name in SPLITS], items.num_ids)
    schema = rows.schema.append(pa.field(CANDIDATES, pa.list_(pa.int64())))

    def batches() -> Iterator[pa.RecordBatch]:
        for number, table in enumerate(row_groups(rows, BATCH_ROWS)):  # a fixed size: the batch number seeds the draws
            [batch] = table.combine_chunks().to_batches()
            user, item = (batch[name].to_numpy() for name in (USER, ITEM))
            rng = np.random.default_rng([seed, _CANDIDATES, split, number])
            drawn = np.column_stack([item, sampler.draw(user, count, rng)])
            offsets = np.arange(len(batch) + 1, dtype=np.int32) * (count + 1)
            candidates = pa.ListArray.from_arrays(offsets, drawn.ravel())
            yield pa.record_batch([*batch.columns, candidates], schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())
