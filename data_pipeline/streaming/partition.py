"""Which rows each rank and worker reads: pure functions of row counts, the same on every rank without communication.

An epoch is one sequence of N rows: the row groups of a split, permuted for training, in file order for evaluation. It
is cut in K = world_size * workers contiguous shards; a row group on a cut is read by both shards, each keeping its
slice. Shard ``rank * workers + worker`` belongs to that worker of that rank. All shards make the same number of steps
S, since ranks with unequal numbers of batches hang in the next collective.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data_pipeline.errors import DataError

logger = logging.getLogger(__name__)

# Second word of every random seed: keeps the streams of row groups and of rows apart.
_GROUPS, _ROWS = 1, 2


class Slice(NamedTuple):
    """Rows ``start <= row < stop`` of a row group."""

    group: int
    start: int
    stop: int


@dataclass(frozen=True)
class Partition:
    """Shards of equal numbers of steps.

    Step s of a shard of n rows holds its rows from ``n * s // S`` to ``n * (s + 1) // S``: sizes within one row of each
    other and no small last batch. Batches are never empty, because S is at most the smallest shard.

    Attributes:
        cuts: int64 ``[K + 1]``, first row of every shard in the epoch's sequence, and N.
        steps: S, of every shard. A rank makes ``workers * S`` steps, its workers taking turns: 0, 1, ... 0, 1, ...
    """

    cuts: np.ndarray
    steps: int
    world_size: int
    workers: int

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 ``[K]``, rows of every shard."""
        return np.diff(self.cuts)

    def batch_start(self, shard: int, step: int) -> int:
        """First row of a step, counted from the shard's first row; ``step = steps`` gives the shard's end."""
        return int(self.sizes[shard]) * step // self.steps

    def batch_rows(self, worker: int, step: int) -> np.ndarray:
        """int64 ``[world_size]``: rows that every rank's ``worker`` gives at its ``step``.

        Round-robin turns make these one global batch: all ranks take step s of worker w at the same time.
        """
        rows = self.sizes[worker :: self.workers]
        return rows * (step + 1) // self.steps - rows * step // self.steps

    def weight(self, rank: int, worker: int, step: int) -> float:
        """``Batch.weight``: local rows * world_size / global rows."""
        rows = self.batch_rows(worker, step)
        return float(rows[rank] * self.world_size / rows.sum())


def partition_rows(rows: int, batch_size: int, world_size: int, workers: int = 1, *, split: str = "split") -> Partition:
    """Shards of equal size to within one row; S = ceil(largest shard / batch_size).

    A batch exceeds ``batch_size`` in one case only: ``batch_size = 1`` and shards that differ by a row, which no equal
    number of one-row steps can cover.

    Raises:
        DataError: fewer rows than shards.
    """
    shards = world_size * workers
    if rows < shards:
        raise DataError(f"{split}: {rows} rows, {_too_few(world_size, workers)}")
    return _partition(np.arange(shards + 1) * rows // shards, batch_size, world_size, workers)


def partition_users(
    user_ends: np.ndarray, batch_size: int, world_size: int, workers: int = 1, *, split: str = "split"
) -> Partition:
    """Shards that keep every user whole, for rows sorted by user. Batches may still cut a user.

    Shards are cut in turn. The share of a shard is the rows not yet given, divided by the shards not yet cut; it ends
    at the user boundary nearest to its share that leaves it and every later shard at least one user.

    Users of very different sizes make shards of very different sizes. Steps are then as many as the smallest shard has
    rows, and batches of the larger shards grow beyond ``batch_size``: exact, at the price of memory. A warning says so.

    Args:
        user_ends: int64 ``[users]``, strictly increasing: the row after every user's last one.

    Raises:
        DataError: fewer users than shards.
    """
    shards = world_size * workers
    users = len(user_ends)
    if users < shards:
        raise DataError(f"{split}: {users} users, each kept on one shard, {_too_few(world_size, workers)}")
    cuts, next_user = [0], 0
    for shards_left in range(shards, 1, -1):
        share_end = cuts[-1] + (user_ends[-1] - cuts[-1]) / shards_left
        last = int(np.searchsorted(user_ends, share_end))
        if last > 0 and share_end - user_ends[last - 1] < user_ends[last] - share_end:
            last -= 1
        last = min(max(last, next_user), users - shards_left)
        cuts.append(int(user_ends[last]))
        next_user = last + 1
    partition = _partition(np.array([*cuts, int(user_ends[-1])], dtype=np.int64), batch_size, world_size, workers)
    smallest_shard, largest_shard = int(partition.sizes.min()), int(partition.sizes.max())
    largest = -(-largest_shard // partition.steps)
    if largest > batch_size:
        logger.warning(
            "%s: shards of whole users hold from %d to %d rows; batches of up to %d rows instead of %d keep the number "
            "of steps equal. Fewer ranks or data workers make them smaller.",
            *(split, smallest_shard, largest_shard, largest, batch_size),
        )
    return partition


def epoch_order(num_groups: int, seed: int, epoch: int) -> np.ndarray:
    """int64 ``[num_groups]``: the row groups of a training epoch, permuted from (seed, epoch)."""
    return np.random.default_rng([seed, _GROUPS, epoch]).permutation(num_groups)


def row_seed(seed: int, epoch: int, shard: int, block: int) -> int:
    """Seed of the permutation of one shuffle block."""
    return int(np.random.SeedSequence([seed, _ROWS, epoch, shard, block]).generate_state(1, np.uint64)[0] >> 1)


def slices(group_rows: np.ndarray, order: np.ndarray, first: int, last: int) -> list[Slice]:
    """The parts of row groups that make rows ``first <= row < last`` of the sequence.

    Args:
        group_rows: int64 ``[G]``, rows of every row group, in file order.
        order: int64 ``[G]``, the order of row groups in the sequence.
    """
    ends = np.cumsum(group_rows[order])
    found = []
    for place in range(np.searchsorted(ends, first, side="right"), np.searchsorted(ends, last, side="left") + 1):
        group = int(order[place])
        begin = int(ends[place] - group_rows[group])
        start, stop = max(first - begin, 0), min(last - begin, int(group_rows[group]))
        if start < stop:
            found.append(Slice(group, start, stop))
    return found


def _partition(cuts: np.ndarray, batch_size: int, world_size: int, workers: int) -> Partition:
    sizes = np.diff(cuts)
    steps = min(-(-int(sizes.max()) // batch_size), int(sizes.min()))
    return Partition(cuts, steps, world_size, workers)


def _too_few(world_size: int, workers: int) -> str:
    shards = world_size * workers
    return (
        f"too few for {world_size} ranks x {workers} data workers = {shards} shards. "
        "Use fewer ranks or data workers, or more data."
    )
