"""A split of a prepared folder -> epochs of `Batch`.

The rows of every step are a function of (data, seed, epoch, step), so the state of the stream is its position: to
resume, a rank reads the block of its next step and decodes nothing before the row groups of that block.
"""

from __future__ import annotations

import zlib
from collections.abc import Generator
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
from data_pipeline.streaming.settings import StreamSettings
from data_pipeline.streaming.threads import CallingThread, Threads, in_order

UNSHUFFLED_BLOCK = 65_536  # rows of a rank
AHEAD = 4  # batches per thread


class ParquetStream:
    """Reads one rank's batches of one split.

    It reads the columns of ``schema``; ``dataclasses.replace(schema, categorical=..., dense=...)`` reads fewer.

    Args:
        folder: A prepared folder, with the files of ``schema``.
        schema: Schema of the columns.
        split: Split to read.
        settings: How this rank reads it.

    Raises:
        DataError: The files do not match the schema, or there are too few rows (or users) for the ranks. Faults in the
            columns are raised while streaming.
    """

    def __init__(self, folder: Path | str, schema: Schema, split: str, settings: StreamSettings) -> None:
        _check_columns(schema)
        batch_size, world_size, shuffle = settings.batch_size, settings.world_size, settings.shuffle
        groups = read_footers(Path(folder), schema, split)
        rows = int(groups.rows.sum())
        if settings.group_by_user:
            partition = partition_users(read_user_ends(groups, schema), batch_size, world_size, split=split)
        else:
            partition = partition_rows(rows, batch_size, world_size, shuffle=shuffle, split=split)
        block = settings.shuffle_buffer if shuffle else UNSHUFFLED_BLOCK * world_size
        added = (column for transform in settings.transforms for column in transform.columns)
        columns = (*schema.categorical, *added)
        layout = BatchLayout(replace(schema, categorical=columns), [TableRows.load(folder, each) for each in columns])
        self.plan = EpochPlan(groups, schema, layout, partition, block_cuts(partition.steps, rows, block), settings)
        self.fingerprint: dict[str, object] = {
            "split": split,
            "rows": rows,
            "row_group_checksum": zlib.crc32(groups.rows.tobytes()),
            "batch_size": batch_size * world_size,
            "seed": settings.seed,
            "shuffle": shuffle,
            "shuffle_buffer": settings.shuffle_buffer,
            "group_by_user": settings.group_by_user,
            "lanes": partition.lanes,
            "steps": partition.steps,
        }
        self._workers = settings.workers

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
