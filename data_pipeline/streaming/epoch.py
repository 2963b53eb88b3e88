"""One rank's batches of one epoch: blocks of consecutive steps are read lane by lane and cut into batches.

The work is a sequence of tasks: read a lane's part of a block, arrange the block, make a batch of it. Each task depends
only on earlier ones, so any pool that begins them in order can run them. The rows of a batch do not depend on the pool.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate

import numpy as np
import torch

from data_pipeline.batch import Batch
from data_pipeline.schema import Schema
from data_pipeline.streaming.blocks import BatchLayout, Block, ranges
from data_pipeline.streaming.columns import ColumnArrays
from data_pipeline.streaming.draws import Draws, epoch_key
from data_pipeline.streaming.order import epoch_order, row_seed, slices
from data_pipeline.streaming.partition import Partition
from data_pipeline.streaming.row_groups import AT_ONCE, RowGroups, RowReader
from data_pipeline.streaming.settings import StreamSettings
from data_pipeline.streaming.threads import Pool, Task

DECODED_BYTES = 1 << 25  # of the decoded rows that the lanes of a rank have in memory, by the sizes of their columns
_UNKNOWN_LENGTH = 64  # ids of a list whose greatest number is not known


@dataclass(frozen=True)
class EpochPlan:
    """What all epochs of a rank have in common.

    Attributes:
        groups: Row groups of the split.
        schema: Schema of the columns to read.
        layout: Layout of batches.
        partition: Partition of the epoch's rows.
        blocks: int64 ``[J + 1]``, the first step of each block, and S.
        settings: How this rank reads the split.
    """

    groups: RowGroups
    schema: Schema
    layout: BatchLayout
    partition: Partition
    blocks: np.ndarray
    settings: StreamSettings


def rows_at_once(plan: EpochPlan) -> int:
    """Return the rows that a lane decodes at a time: more are faster, and take more memory in every lane."""
    lanes, schema = -(-plan.partition.lanes // plan.partition.world_size), plan.schema
    ids = sum((column.max_length or _UNKNOWN_LENGTH) if column.sequence else 1 for column in schema.categorical)
    return min(max(DECODED_BYTES // (lanes * (8 * ids + 4 * len(schema.dense) + 4)), 1), AT_ONCE)


class LaneReader:
    """Reads the rows of a lane of an epoch in sequence; a jump opens the row group of its target."""

    def __init__(self, plan: EpochPlan, order: np.ndarray, first: int, last: int) -> None:
        self._plan = plan
        self._order, self._first, self._last = order, first, last
        self._reader: RowReader | None = None
        self._at = 0

    def read(self, begin: int, end: int) -> Iterator[ColumnArrays]:
        """Read rows ``begin <= row < end``, counted from the first row of the lane."""
        if self._reader is None or begin != self._at:
            self.close()
            parts = slices(self._plan.groups.rows, self._order, self._first + begin, self._last)
            self._reader = RowReader(self._plan.groups, self._plan.schema, parts, rows_at_once(self._plan))
        self._at = end
        return self._reader.read(end - begin)

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()


class Epoch:
    """One epoch of a rank.

    Args:
        plan: Plan of the rank.
        number: Number of the epoch.
    """

    def __init__(self, plan: EpochPlan, number: int) -> None:
        self.plan = plan
        self.number = number
        self.key = epoch_key(plan.settings.seed, number)
        groups = len(plan.groups)
        self._order = epoch_order(groups, plan.settings.seed, number) if plan.settings.shuffle else np.arange(groups)
        self._lanes: dict[int, LaneReader] = {}
        self.latest: dict[int, Task[None]] = {}  # reading of each lane

    def batches(self, pool: Pool, step: int, *, ahead: bool) -> Iterator[Task[Batch]]:
        """Submit the work of the epoch from ``step`` on, a batch at a time.

        Args:
            pool: Threads to submit to.
            step: The first step.
            ahead: Submit the reading of the next block between the batches of this one, a part at a time.

        Yields:
            The task of each batch.
        """
        cuts = self.plan.blocks.tolist()
        numbers = [number for number, end in enumerate(cuts[1:]) if end > step]
        works = (BlockWork(self, number, cuts[number], cuts[number + 1]) for number in numbers)
        following = next(works, None)
        while following is not None:
            work, following = following, next(works, None) if ahead else None
            work.submit(pool, 1.0)
            steps = range(max(step, work.first), work.last)
            for done, at in enumerate(steps, 1):
                yield pool.submit(work.batch, at)
                if following is not None:
                    following.submit(pool, done / len(steps))
            following = following if ahead else next(works, None)

    def lane(self, lane: int) -> LaneReader:
        """Return the reader of a lane."""
        if lane not in self._lanes:
            first, last = self.plan.partition.cuts[lane : lane + 2].tolist()
            self._lanes[lane] = LaneReader(self.plan, self._order, first, last)
        return self._lanes[lane]

    def close(self) -> None:
        """Close the files. No work may be in progress."""
        for lane in self._lanes.values():
            lane.close()


@dataclass
class BlockWork:
    """The work on block ``number`` of an epoch, which has the steps ``first <= step < last``."""

    epoch: Epoch
    number: int
    first: int
    last: int
    _reading: list[Task[None]] = field(default_factory=list)
    _arranging: Task[None] | None = None

    def __post_init__(self) -> None:
        plan = self.epoch.plan
        self._share = plan.partition.share(plan.settings.rank, self.first, self.last)
        self._positions = plan.partition.positions(plan.settings.rank, self.first, self.last)
        self._ends = [*accumulate(position.rows for position in self._positions)]
        counts = self._share.counts
        self._starts = (np.cumsum(counts) - counts.ravel()).reshape(counts.shape)  # of steps and lanes in the block
        self._block = Block(plan.schema, counts.shape[1], self._ends[-1])

    def submit(self, pool: Pool, part: float) -> None:
        """Submit the reading of the first lanes, up to this fraction of them, and after the last one the arranging."""
        lanes = self._share.last - self._share.first
        for index in range(len(self._reading), int(part * lanes)):
            self._reading.append(self._submit_lane(pool, index))
        if part == 1.0 and self._arranging is None:
            self._arranging = pool.submit(self._arrange, self._reading)

    def _submit_lane(self, pool: Pool, index: int) -> Task[None]:
        lane = self._share.first + index
        reader, begin, end = self.epoch.lane(lane), int(self._share.begin[index]), int(self._share.end[index])

        before = self.epoch.latest.get(lane)

        def read() -> None:
            if before is not None:
                before.result()
            self._block.fill(index, reader.read(begin, end), self._target(index))

        self.epoch.latest[lane] = task = pool.submit(read)
        return task

    def _arrange(self, reading: list[Task[None]]) -> None:
        for task in reading:
            task.result()
        self._block.arrange()

    def _target(self, index: int) -> np.ndarray | None:
        """Return the index in the block of each row of a lane, whose rows of a step follow those of the lane before."""
        if not self.epoch.plan.settings.shuffle:  # a rank has one lane
            return None
        share, counts = self._share, self._share.counts[:, index]
        rows = int(share.end[index] - share.begin[index])
        order = self._order(index, rows)
        if counts.sum() < rows:  # the rank shares the lane with others
            order = order[ranges(share.starts[:, index], counts)]
        target = np.full(rows, self._ends[-1])
        target[order] = ranges(self._starts[:, index], counts)
        return target

    def _order(self, index: int, rows: int) -> np.ndarray:
        """Return the permutation of the rows of a lane in this block."""
        # torch permutes four times as fast as numpy.random does.
        seed = row_seed(self.epoch.plan.settings.seed, self.epoch.number, self._share.first + index, self.number)
        return torch.randperm(rows, generator=torch.Generator().manual_seed(seed)).numpy()

    def batch(self, step: int) -> Batch:
        """Make the batch of a step, after the arranging."""
        assert self._arranging is not None  # `submit` comes first
        self._arranging.result()
        plan, index = self.epoch.plan, step - self.first
        position, end = self._positions[index], self._ends[index]
        rows = self._block.take(end - position.rows, end)
        draws = Draws(self.epoch.key, step, position.first_row)
        for number, transform in enumerate(plan.settings.transforms):
            rows.sequences += transform(rows, draws.stream(number))
        batch = plan.layout(rows, position.weight, position.largest)
        return batch.pin_memory() if plan.settings.pin_memory else batch
