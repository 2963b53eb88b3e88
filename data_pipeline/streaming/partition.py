"""Which rows each rank reads: pure functions of row counts, the same on every rank without communication.

An epoch is one sequence of N rows: the row groups of a split, permuted for training, in file order otherwise. It is cut
into contiguous lanes, and step t of the epoch takes the next rows of every lane. So the rows of a step, the *global
batch*, are its lanes' shares, one after the other, and the ranks cut this sequence among themselves.

Training has 16 lanes on any number of ranks: what a global batch holds, and in which order, depends on the data, the
seed, the epoch and the size of the global batch alone. Where the number of ranks divides 16, a rank reads whole lanes;
otherwise a lane on the cut between two ranks is read by both, each keeping its rows. Without shuffling there is a lane
for every rank, in file order.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from data_pipeline.errors import DataError

logger = logging.getLogger(__name__)

LANES = 16  # of a training epoch

# Second word of every random seed: keeps the streams of row groups and of rows apart.
_GROUPS, _ROWS = 1, 2


class Slice(NamedTuple):
    """Rows ``start <= row < stop`` of a row group."""

    group: int
    start: int
    stop: int


class Share(NamedTuple):
    """What one rank takes in ``T`` consecutive steps.

    Attributes:
        first, last: the rank reads lanes ``first <= lane < last``.
        begin: int64 ``[lanes]``, first row of every such lane in these steps, counted from the lane's start.
        end: int64 ``[lanes]``, the row after its last one.
        starts: int64 ``[T, lanes]``, first row in each step that is this rank's, counted from ``begin``.
        counts: int64 ``[T, lanes]``, this rank's rows in each step.
    """

    first: int
    last: int
    begin: np.ndarray
    end: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


class Place(NamedTuple):
    """A rank's batch within the epoch: its rows are ``first_row .. first_row + rows - 1`` of the epoch as trained."""

    first_row: int
    rows: int
    largest: int  # rows of the largest batch of any rank in this step
    weight: float  # `Batch.weight`: rows * world_size / rows of the global batch


@dataclass(frozen=True)
class Partition:
    """An epoch's rows cut into lanes, and lanes into steps.

    Attributes:
        cuts: int64 ``[K + 1]``, first row of every lane in the epoch's sequence, and N.
        steps: S, the same on every rank, since ranks with unequal numbers of batches hang in the next collective.
        world_size: W.
        even: lanes of equal size to within one row, whose shares make global batches of equal size to within one row.
            Otherwise step s of a lane of n rows holds its rows from ``n * s // S`` to ``n * (s + 1) // S``.
    """

    cuts: np.ndarray
    steps: int
    world_size: int
    even: bool

    @cached_property
    def sizes(self) -> np.ndarray:
        """int64 ``[K]``, rows of every lane."""
        return np.diff(self.cuts)

    @property
    def lanes(self) -> int:
        return len(self.cuts) - 1

    @property
    def rows(self) -> int:
        return int(self.cuts[-1])

    def lane_starts(self, steps: np.ndarray) -> np.ndarray:
        """int64 ``[T, K]``: rows of every lane before each of ``steps [T]``; before step S it is the lane's size."""
        if not self.even:
            return steps[:, None] * self.sizes // self.steps
        # floor((g + 0) / K) + ... + floor((g + K-1) / K) = g (Hermite's identity)
        return (steps[:, None] * self.rows // self.steps + _spread(self.lanes)) // self.lanes

    def rank_cuts(self, shares: np.ndarray) -> np.ndarray:
        """int64 ``[T, W + 1]``: every rank's first row in the global batch, made of ``shares [T, K]``; and its end."""
        if self.lanes % self.world_size == 0:
            each = self.lanes // self.world_size
            ends = np.cumsum(shares, axis=1)[:, each - 1 :: each]
            return np.pad(ends, ((0, 0), (1, 0)))
        return shares.sum(axis=1, keepdims=True) * np.arange(self.world_size + 1) // self.world_size

    def share(self, rank: int, first: int, last: int) -> Share:
        """The rows of a rank in steps ``first <= step < last``."""
        starts = self.lane_starts(np.arange(first, last + 1))
        shares = np.diff(starts, axis=0)
        cuts = self.rank_cuts(shares)
        ends = np.cumsum(shares, axis=1)
        begin = np.maximum(cuts[:, rank, None], ends - shares)
        counts = np.maximum(np.minimum(cuts[:, rank + 1, None], ends) - begin, 0)
        used = np.flatnonzero(counts.any(axis=0))
        lanes = slice(used[0], used[-1] + 1)
        within = starts[:-1] - starts[0] + begin - (ends - shares)
        return Share(
            int(lanes.start), int(lanes.stop), starts[0, lanes], starts[-1, lanes], within[:, lanes], counts[:, lanes]
        )

    def places(self, rank: int, first: int, last: int) -> list[Place]:
        """The batches of a rank in steps ``first <= step < last``."""
        starts = self.lane_starts(np.arange(first, last + 1))
        cuts = self.rank_cuts(np.diff(starts, axis=0))
        first_rows = starts[:-1].sum(axis=1) + cuts[:, rank]
        sizes = np.diff(cuts, axis=1)
        weights = sizes[:, rank] * self.world_size / cuts[:, -1]
        columns = (first_rows, sizes[:, rank], sizes.max(axis=1), weights)
        return list(map(Place._make, zip(*(column.tolist() for column in columns), strict=True)))


def partition_rows(rows: int, batch_size: int, world_size: int, *, shuffle: bool, split: str = "split") -> Partition:
    """Lanes of equal size to within one row; S = ceil(rows / rows of a global batch).

    Batches differ by one row, between the steps of an epoch and between the ranks of a step; there is no small last
    batch. One case has fewer steps, and so larger batches: one row a rank and step, and a number of rows that the ranks
    do not divide; every rank then has at least one row in every step.

    Args:
        rows: N.
        batch_size: rows per rank and step.
        world_size: W.
        shuffle: for training; see this module.
        split: for messages.

    Raises:
        DataError: fewer rows than ranks.
    """
    if rows < world_size:
        raise DataError(f"{split}: {rows} rows, {_too_few(world_size)}")
    lanes = LANES if shuffle else world_size
    cuts = np.append(0, np.cumsum((rows + _spread(lanes)) // lanes))
    steps = -(-rows // (batch_size * world_size))
    if rows // steps < world_size:
        steps = rows // world_size
    return Partition(cuts, steps, world_size, even=True)


def partition_users(user_ends: np.ndarray, batch_size: int, world_size: int, *, split: str = "split") -> Partition:
    """A lane for every rank that keeps users whole, for rows sorted by user. Batches may still cut a user.

    Lanes are cut in turn. The share of a lane is the rows not yet given, divided by the lanes not yet cut; it ends at
    the user boundary nearest to its share that leaves it and every later lane at least one user.

    Users of very different sizes make lanes of very different sizes. Steps are then as many as the smallest lane has
    rows, and batches of the larger lanes grow beyond ``batch_size``: exact, at the price of memory. A warning says so.

    Args:
        user_ends: int64 ``[users]``, strictly increasing: the row after every user's last one.
        batch_size: rows per rank and step.
        world_size: W.
        split: for messages.

    Raises:
        DataError: fewer users than ranks.
    """
    users = len(user_ends)
    if users < world_size:
        raise DataError(f"{split}: {users} users, each kept on one rank, {_too_few(world_size)}")
    cuts, next_user = [0], 0
    for lanes_left in range(world_size, 1, -1):
        share_end = cuts[-1] + (user_ends[-1] - cuts[-1]) / lanes_left
        last = int(np.searchsorted(user_ends, share_end))
        if last > 0 and share_end - user_ends[last - 1] < user_ends[last] - share_end:
            last -= 1
        last = min(max(last, next_user), users - lanes_left)
        cuts.append(int(user_ends[last]))
        next_user = last + 1
    lanes = np.array([*cuts, int(user_ends[-1])], dtype=np.int64)
    smallest, largest = int(np.diff(lanes).min()), int(np.diff(lanes).max())
    steps = min(-(-largest // batch_size), smallest)
    largest_batch = -(-largest // steps)
    if largest_batch > batch_size:
        logger.warning(
            "%s: ranks with whole users hold from %d to %d rows; batches of up to %d rows instead of %d keep the "
            "number of steps equal. Fewer ranks make them smaller.",
            *(split, smallest, largest, largest_batch, batch_size),
        )
    return Partition(lanes, steps, world_size, even=False)


def block_cuts(steps: int, rows: int, block_rows: int) -> np.ndarray:
    """int64 ``[J + 1]``: steps at which the next block of about ``block_rows`` rows begins, and S."""
    blocks = min(steps, -(-rows // block_rows))
    return np.arange(blocks + 1) * steps // blocks


def epoch_order(num_groups: int, seed: int, epoch: int) -> np.ndarray:
    """int64 ``[num_groups]``: the row groups of a training epoch, permuted from (seed, epoch)."""
    return np.random.default_rng([seed, _GROUPS, epoch]).permutation(num_groups)


def row_seed(seed: int, epoch: int, lane: int, block: int) -> int:
    """Seed of the permutation of one lane's rows in one block."""
    return int(np.random.SeedSequence([seed, _ROWS, epoch, lane, block]).generate_state(1, np.uint64)[0] >> 1)


def slices(group_rows: np.ndarray, order: np.ndarray, first: int, last: int) -> list[Slice]:
    """The parts of row groups that make rows ``first <= row < last`` of the sequence.

    Args:
        group_rows: int64 ``[G]``, rows of every row group, in file order.
        order: int64 ``[G]``, the order of row groups in the sequence.
        first, last: rows of the sequence.
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


def _spread(lanes: int) -> np.ndarray:
    """int64 ``[lanes]``, a permutation: which lanes get a row more than others, in turn, far from each other.

    In the order of reversed bits every aligned half, quarter, … of the lanes gets its part of every few rows, so the
    ranks' batches differ by no more than a row.
    """
    return np.argsort(sorted(range(lanes), key=lambda lane: f"{lane:032b}"[::-1]))


def _too_few(world_size: int) -> str:
    return f"too few for {world_size} ranks. Use fewer ranks, or more data."
