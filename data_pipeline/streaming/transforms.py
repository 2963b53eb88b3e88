"""Lists of ids that are not in the files but drawn, or laid down, for every batch.

A transform appends sequence columns to the rows of a batch. It is given a generator seeded from the run's seed and the
batch's place in the epoch, so that what it draws is the same again after a restart, in whatever process.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from data_pipeline.schema import Categorical
from data_pipeline.streaming.blocks import Rows

Lists = tuple[np.ndarray, np.ndarray]  # values, and int64 [n] lengths


class RowTransform(Protocol):
    columns: tuple[Categorical, ...]

    def __call__(self, rows: Rows, rng: np.random.Generator) -> list[Lists]:
        """A list a row for each of `columns`."""
        ...


def row_block(rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """First row, and the row after the last, of a rank's block: blocks of one size, but for the last ones."""
    size = -(-rows // world_size)
    return min(rank * size, rows), min((rank + 1) * size, rows)


def list_column(name: str, like: Categorical) -> Categorical:
    """A sequence of ids of the same table."""
    return Categorical(name, like.num_ids, like.num_seen, like.role, sequence=True, table=like.table_name)
