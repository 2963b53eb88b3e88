"""The order of the rows of an epoch: permuted row groups, and permuted rows within blocks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Second word of every random seed: makes the streams of row groups and of rows independent.
_GROUPS, _ROWS = 1, 2


class Slice(NamedTuple):
    """Rows ``start <= row < stop`` of a row group."""

    group: int
    start: int
    stop: int


def epoch_order(num_groups: int, seed: int, epoch: int) -> np.ndarray:
    """Permute the row groups of a training epoch by (seed, epoch): int64 ``[num_groups]``."""
    return np.random.default_rng([seed, _GROUPS, epoch]).permutation(num_groups)


def row_seed(seed: int, epoch: int, lane: int, block: int) -> int:
    """Return the seed of the permutation of one lane's rows in one block."""
    return int(np.random.SeedSequence([seed, _ROWS, epoch, lane, block]).generate_state(1, np.uint64)[0] >> 1)


def slices(group_rows: np.ndarray, order: np.ndarray, first: int, last: int) -> list[Slice]:
    """Return the parts of row groups that are rows ``first <= row < last`` of the sequence.

    Args:
        group_rows: int64 ``[G]``, rows of every row group, in file order.
        order: int64 ``[G]``, the order of row groups in the sequence.
        first: First row of the sequence.
        last: The row after the last one.
    """
    ends = np.cumsum(group_rows[order])
    found = []
    for index in range(np.searchsorted(ends, first, side="right"), np.searchsorted(ends, last, side="left") + 1):
        group = int(order[index])
        begin = int(ends[index] - group_rows[group])
        start, stop = max(first - begin, 0), min(last - begin, int(group_rows[group]))
        if start < stop:
            found.append(Slice(group, start, stop))
    return found
