"""A split of a prepared folder -> epochs of `Batch`.

The rows of every step are a function of (data, seed, epoch, step), so the state of the stream is its position: to
resume, a rank reads the block of its next step and decodes nothing before the row groups of that block.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_pipeline.batch import Batch
from data_pipeline.errors import DataError
from data_pipeline.rare_ids import TableRows
from data_pipeline.schema import Schema
from data_pipeline.streaming.blocks import BatchLayout
from data_pipeline.streaming.epoch import Epoch, EpochPlan
from data_pipeline.streaming.partition import block_cuts, partition_rows, partition_users
from data_pipeline.streaming.row_groups import read_footers, read_user_ends
from data_pipeline.streaming.threads import CallingThread, Threads, in_order
from data_pipeline.streaming.transforms import RowTransform

SHUFFLE_BUFFER = 262_144
UNSHUFFLED_BLOCK = 65_536  # rows of a rank
AHEAD = 4  # batches per thread


class ParquetStream:
    """Reads one rank's batches of one split.

    It reads the columns of ``schema``; ``dataclasses.replace(schema, categorical=..., dense=...)`` reads fewer.

    Args:
        folder: A prepared folder, with the files of ``schema``.
        schema: Schema of the columns.
        split: Split to read.
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
        DataError: The files do not match the schema, or there are too few rows (or users) for the ranks. Faults in the
            columns are raised while streaming.
        ValueError: An argument is out of range.
    """

    def __init__(
        self,
        folder: Path | str,
        schema: Schema,
        split: str,
        batch_size: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        seed: int = 0,
        shuffle: bool = False,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        group_by_user: bool = False,
        pin_memory: bool = False,
        transforms: Sequence[RowTransform] = (),
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank = {rank}, expected 0 <= rank < world_size = {world_size}")
        if batch_size < 1 or shuffle_buffer < 1 or workers < 0 or seed < 0:
            raise ValueError(
                f"batch_size = {batch_size}, shuffle_buffer = {shuffle_buffer} (both >= 1), "
                f"workers = {workers}, seed = {seed} (both >= 0)"
            )
        if shuffle and group_by_user:
            raise ValueError("shuffle and group_by_user exclude each other: shuffled rows scatter a user")
        _check_columns(schema)
        groups = read_footers(Path(folder), schema, split)
        rows = int(groups.rows.sum())
        if group_by_user:
            partition = partition_users(read_user_ends(groups, schema), batch_size, world_size, split=split)
        else:
            partition = partition_rows(rows, batch_size, world_size, shuffle=shuffle, split=split)
        blocks = block_cuts(partition.steps, rows, shuffle_buffer if shuffle else UNSHUFFLED_BLOCK * world_size)
        added = (column for transform in transforms for column in transform.columns)
        columns = (*schema.categorical, *added)
        layout = BatchLayout(replace(schema, categorical=columns), [TableRows.load(folder, each) for each in columns])
        self.plan = EpochPlan(
            groups, schema, layout, partition, blocks, rank, seed, shuffle, tuple(transforms), pin_memory
        )
        self.fingerprint: dict[str, object] = {
            "split": split,
            "rows": rows,
            "row_group_checksum": zlib.crc32(groups.rows.tobytes()),
            "batch_size": batch_size * world_size,
            "seed": seed,
            "shuffle": shuffle,
            "shuffle_buffer": shuffle_buffer,
            "group_by_user": group_by_user,
            "lanes": partition.lanes,
            "steps": partition.steps,
        }
        self._workers = workers

    def __len__(self) -> int:
        """Return the steps of an epoch, the same on every rank."""
        return self.plan.partition.steps

    def batches(self, epoch: int, step: int = 0) -> Generator[Batch, None, None]:
        """Yield the batches of an epoch from a step on. Closing the iterator ends its threads."""
        if step == len(self):
            return
        with closing(Epoch(self.plan, epoch)) as work:
            pool = Threads(self._workers) if self._workers else CallingThread()
            try:
                tasks = work.batches(pool, step, ahead=self._workers > 0)
                yield from in_order(tasks, AHEAD * self._workers)
            finally:
                pool.shutdown()


def _check_columns(schema: Schema) -> None:
    for role, form in (("user", "of one id per row "), ("item", "")):
        if not any(c.role == role and not (c.sequence and form) for c in schema.categorical):
            raise DataError(f"schema of {schema.name}: no column {form}has role {role!r}; batches need one")
    for column in schema.dense:
        if not (column.std > 0 and np.isfinite(column.std) and np.isfinite(column.mean)):
            raise DataError(
                f"schema of {schema.name}: {column.name} has mean = {column.mean}, std = {column.std}, expected finite "
                "numbers and std > 0. Prepare the data again"
            )
