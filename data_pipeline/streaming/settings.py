"""How a rank reads a split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from data_pipeline.streaming.transforms import RowTransform

SHUFFLE_BUFFER = 262_144


@dataclass(frozen=True)
class StreamSettings:
    """How a rank reads a split, and what its batches are.

    Attributes:
        batch_size: Rows per rank and step; see `partition` for the exact sizes.
        rank: Rank of this process.
        world_size: The number of processes.
        workers: Threads that read ahead; 0 reads in the calling thread. The batches do not depend on them.
        seed: Seed of permutations and transforms.
        shuffle: Permute row groups, and rows within blocks, differently in each epoch; else file order.
        shuffle_buffer: Rows of a block over all ranks, in whole steps. A rank has in memory its rows of a block, with
            ``workers`` those of the next block as well, an encoded row group of each of its lanes, and up to 32 MB of
            decoded rows that are not yet in a block.
        group_by_user: Keep all rows of a user on one rank, for evaluation. Excludes ``shuffle``.
        pin_memory: Page-locked batches, for copies to an accelerator.
        transforms: Each appends columns to the rows of every batch.

    Raises:
        ValueError: A setting is out of range.
    """

    batch_size: int
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    seed: int = 0
    shuffle: bool = False
    shuffle_buffer: int = SHUFFLE_BUFFER
    group_by_user: bool = False
    pin_memory: bool = False
    transforms: Sequence[RowTransform] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank = {self.rank}, expected 0 <= rank < world_size = {self.world_size}")
        if self.batch_size < 1 or self.shuffle_buffer < 1 or self.workers < 0 or self.seed < 0:
            raise ValueError(
                f"batch_size = {self.batch_size}, shuffle_buffer = {self.shuffle_buffer} (both >= 1), "
                f"workers = {self.workers}, seed = {self.seed} (both >= 0)"
            )
        if self.shuffle and self.group_by_user:
            raise ValueError("shuffle and group_by_user exclude each other: shuffled rows scatter a user")
