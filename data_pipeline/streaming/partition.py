"""Which rows each rank reads: pure functions of row counts, the same on every rank without communication.

An epoch is one sequence of N rows: the row groups of a split, permuted for training, in file order otherwise. It is cut
into contiguous lanes, and step t of the epoch takes the next rows of every lane. The rows of a step, the *global
batch*, are the shares of its lanes in order, and this sequence is divided among the ranks.

Training has 16 lanes on any number of ranks: the rows of a global batch and their order depend only on the data, the
seed, the epoch and the size of the global batch. Where the number of ranks divides 16, a rank reads whole lanes;
otherwise a lane at the boundary between two ranks is read by both, and each keeps its rows. Without shuffling there is
one lane per rank, in file order.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np

from data_pipeline.errors import DataError

logger = logging.getLogger(__name__)

LANES = 16  # of a training epoch


class Share(NamedTuple):
    """The rows of one rank in ``T`` consecutive steps.

    Attributes:
        first: The first lane that the rank reads.
        last: The lane after the last one that it reads.
        begin: int64 ``[lanes]``, first row of every such lane in these steps, counted from the start of the lane.
        end: int64 ``[lanes]``, the row after the last one.
        starts: int64 ``[T, lanes]``, first row of this rank in each step, counted from ``begin``.
        counts: int64 ``[T, lanes]``, rows of this rank in each step.
    """

    first: int
    last: int
    begin: np.ndarray
    end: np.ndarray
    starts: np.ndarray
    counts: np.ndarray


class BatchPosition(NamedTuple):
    """The position of a rank's batch in the epoch.

    Attributes:
        first_row: First row of the batch, in the order in which the epoch is trained.
        rows: Rows of the batch.
        largest: Rows of the largest batch of any rank in this step.
        weight: `Batch.weight`, rows * world_size / rows of the global batch.
    """

    first_row: int
    rows: int
    largest: int
    weight: float


@dataclass(frozen=True)
class Partition:
    """The rows of an epoch cut into lanes, and lanes cut into steps.

    Attributes:
        cuts: int64 ``[K + 1]``, first row of every lane in the sequence of the epoch, and N.
        steps: S, the same on every rank, since ranks with unequal numbers of batches hang in the next collective.
        world_size: W.
        even: Whether the sizes of lanes differ by at most one row, and those of global batches as well. Otherwise step
            s of a lane of n rows has its rows from ``n * s // S`` to ``n * (s + 1) // S``.
    """

    cuts: np.ndarray
    steps: int
    world_size: int
    even: bool

    @cached_property
    def sizes(self) -> np.ndarray:
        """Rows of every lane, int64 ``[K]``."""
        return np.diff(self.cuts)

    @property
    def lanes(self) -> int:
        """The number of lanes K."""
        return len(self.cuts) - 1

    @property
    def rows(self) -> int:
        """The number of rows N."""
        return int(self.cuts[-1])

    def lane_starts(self, steps: np.ndarray) -> np.ndarray:
        """Return the rows of every lane before each of ``steps [T]`` (before step S: all of them): int64 ``[T, K]``."""
        if not self.even:
            return steps[:, None] * self.sizes // self.steps
        # floor((g + 0) / K) + ... + floor((g + K-1) / K) = g (Hermite's identity)
        return (steps[:, None] * self.rows // self.steps + _spread(self.lanes)) // self.lanes

    def rank_cuts(self, shares: np.ndarray) -> np.ndarray:
        """Return every rank's first row in the global batch of ``shares [T, K]``, and the end: int64 ``[T, W + 1]``."""
        if self.lanes % self.world_size == 0:
            each = self.lanes // self.world_size
            cuts = np.zeros((len(shares), self.world_size + 1), np.int64)
            cuts[:, 1:] = np.cumsum(shares, axis=1)[:, each - 1 :: each]
            return cuts
        return shares.sum(axis=1, keepdims=True) * np.arange(self.world_size + 1) // self.world_size

    def share(self, rank: int, first: int, last: int) -> Share:
        """Return the rows of a rank in steps ``first <= step < last``."""
        starts, shares, cuts = self._steps(first, last)
        ends = np.cumsum(shares, axis=1)
        begin = np.maximum(cuts[:, rank, None], ends - shares)
        counts = np.maximum(np.minimum(cuts[:, rank + 1, None], ends) - begin, 0)
        used = np.flatnonzero(counts.any(axis=0))
        lanes = slice(used[0], used[-1] + 1)
        within = starts[:-1] - starts[0] + begin - (ends - shares)
        return Share(
            int(lanes.start), int(lanes.stop), starts[0, lanes], starts[-1, lanes], within[:, lanes], counts[:, lanes]
        )

    def positions(self, rank: int, first: int, last: int) -> list[BatchPosition]:
        """Return the positions of a rank's batches in steps ``first <= step < last``."""
        starts, _, cuts = self._steps(first, last)
        first_rows = starts[:-1].sum(axis=1) + cuts[:, rank]
        sizes = cuts[:, 1:] - cuts[:, :-1]
        weights = sizes[:, rank] * self.world_size / cuts[:, -1]
        columns = (first_rows, sizes[:, rank], sizes.max(axis=1), weights)
        return list(map(BatchPosition._make, zip(*(column.tolist() for column in columns), strict=True)))

    def _steps(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the `lane_starts` of steps ``first .. last``, the rows of every lane in each, and the `rank_cuts`."""
        starts = self.lane_starts(np.arange(first, last + 1))
        shares = starts[1:] - starts[:-1]
        return starts, shares, self.rank_cuts(shares)


def partition_rows(rows: int, batch_size: int, world_size: int, *, shuffle: bool, split: str = "split") -> Partition:
    """Cut rows into lanes of nearly equal size, and into S = ceil(rows / rows of a global batch) steps.

    Sizes of lanes differ by at most one row, and so do batch sizes between the steps of an epoch and between the ranks
    of a step; there is no small last batch. One case has fewer steps, and so larger batches: one row per rank and step,
    and a number of rows that is not a multiple of the number of ranks; every rank then has a row in every step.

    Args:
        rows: N.
        batch_size: Rows per rank and step.
        world_size: W.
        shuffle: Whether the epoch is shuffled, for training; see this module.
        split: Name of the split, for messages.

    Raises:
        DataError: Fewer rows than ranks.
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
    """Cut rows sorted by user into one lane per rank, without dividing a user between lanes. Batches may divide a user.

    Lanes are cut in order. The target size of a lane is the number of remaining rows divided by the remaining lanes; it
    ends at the nearest user boundary that leaves it and every later lane at least one user.

    Users of very different sizes make lanes of very different sizes. The number of steps is then the number of rows of
    the smallest lane, and batches of larger lanes exceed ``batch_size``, which takes more memory. A warning reports it.

    Args:
        user_ends: int64 ``[users]``, strictly increasing: the row after every user's last one.
        batch_size: Rows per rank and step.
        world_size: W.
        split: Name of the split, for messages.

    Raises:
        DataError: Fewer users than ranks.
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
            "%s: ranks have from %d to %d rows because no user is divided; batches have up to %d rows instead of %d to "
            "keep the number of steps equal. Use fewer ranks for smaller batches",
            *(split, smallest, largest, largest_batch, batch_size),
        )
    return Partition(lanes, steps, world_size, even=False)


def block_cuts(steps: int, rows: int, block_rows: int) -> np.ndarray:
    """Return the first step of every block of about ``block_rows`` rows, and S: int64 ``[J + 1]``."""
    blocks = min(steps, -(-rows // block_rows))
    return np.arange(blocks + 1) * steps // blocks


@cache
def _spread(lanes: int) -> np.ndarray:
    """Return the order in which lanes get one row more than others, far from each other: int64 ``[lanes]``.

    In the order of reversed bits every aligned half, quarter, … of the lanes gets its part of every few rows, so the
    batches of ranks differ by at most one row.
    """
    return np.argsort(sorted(range(lanes), key=lambda lane: f"{lane:032b}"[::-1]))


def _too_few(world_size: int) -> str:
    return f"too few for {world_size} ranks. Use fewer ranks, or more data"


def row_block(rows: int, rank: int, world_size: int) -> tuple[int, int]:
    """Return the first row of a rank's block and the row after the last: blocks have one size, except the last ones."""
    size = -(-rows // world_size)
    return min(rank * size, rows), min((rank + 1) * size, rows)
