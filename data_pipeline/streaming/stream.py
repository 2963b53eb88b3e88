"""A split of a prepared folder -> epoch after epoch of `Batch`.

The rows of an epoch are cut in shards by `partition`; a shard is read in blocks of ``shuffle_buffer`` rows, each
permuted from (seed, epoch, shard, block). So the position in the stream is its whole state: to resume, a shard seeks
the block of its next row and decodes nothing before it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info

from data_pipeline.batch import Batch
from data_pipeline.errors import DataError
from data_pipeline.schema import Schema
from data_pipeline.streaming.blocks import Block, join, to_batch
from data_pipeline.streaming.partition import epoch_order, partition_rows, partition_users, row_seed, slices
from data_pipeline.streaming.row_groups import GroupReader, read_footers, read_user_ends
from data_pipeline.streaming.transforms import RowTransform

SHUFFLE_BUFFER = 262_144
_TRANSFORMS = 3  # second word of the random seed, after those of `partition`


class ParquetStream(IterableDataset[Batch]):
    """One rank's batches of one split.

    Reads the columns that ``schema`` names; ``dataclasses.replace(schema, categorical=..., dense=...)`` reads fewer.

    Args:
        folder: a prepared folder, with the files that ``schema`` names.
        batch_size: rows per rank and step; see `partition` for the exact sizes.
        num_workers: worker processes of the `DataLoader` that will iterate; 0 reads in the calling process.
        shuffle: permute row groups, and rows within blocks, anew each epoch; else file order.
        shuffle_buffer: rows of a block, the memory that shuffling takes in every worker.
        group_by_user: keep all rows of a user on one rank and worker, for evaluation. Excludes ``shuffle``.
        transforms: each appends columns to the rows of every batch.

    Raises:
        DataError: the files do not fit the schema, or there are too few rows (or users) for the ranks and workers.
            Faults inside the columns are raised while streaming.
        ValueError: arguments out of range.
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
        num_workers: int = 0,
        seed: int = 0,
        shuffle: bool = False,
        shuffle_buffer: int = SHUFFLE_BUFFER,
        group_by_user: bool = False,
        transforms: Sequence[RowTransform] = (),
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank = {rank}, expected 0 <= rank < world_size = {world_size}")
        if batch_size < 1 or shuffle_buffer < 1 or num_workers < 0 or seed < 0:
            raise ValueError(
                f"batch_size = {batch_size}, shuffle_buffer = {shuffle_buffer} (both >= 1), "
                f"num_workers = {num_workers}, seed = {seed} (both >= 0)"
            )
        if shuffle and group_by_user:
            raise ValueError("shuffle and group_by_user exclude each other: shuffled rows scatter a user")
        _check_columns(schema)
        self.schema = schema
        self.rank = rank
        self.epoch = 0
        self.groups = read_footers(Path(folder), schema, split)
        shape = (batch_size, world_size, max(num_workers, 1))
        if group_by_user:
            self.partition = partition_users(read_user_ends(self.groups, schema), *shape, split=split)
        else:
            self.partition = partition_rows(int(self.groups.rows.sum()), *shape, split=split)
        self._num_workers = num_workers
        self._seed = seed
        self._shuffle = shuffle
        self._block_rows = shuffle_buffer
        self._transforms = tuple(transforms)
        added = (column for transform in self._transforms for column in transform.columns)
        self._batch_schema = replace(schema, categorical=(*schema.categorical, *added))
        self.fingerprint: dict[str, object] = {
            "split": split,
            "rows": int(self.groups.rows.sum()),
            "row_group_checksum": zlib.crc32(self.groups.rows.tobytes()),
            "world_size": world_size,
            "workers": num_workers,
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "shuffle_buffer": shuffle_buffer,
            "group_by_user": group_by_user,
        }

    def __len__(self) -> int:
        """Steps of this rank in an epoch, the same on every rank."""
        return self.partition.steps * self.partition.workers

    def __iter__(self) -> ShardIterator:
        worker = get_worker_info()
        processes = worker.num_workers if worker else 0
        if processes != self._num_workers:
            raise ValueError(f"stream built for num_workers = {self._num_workers}, iterated by {processes}")
        return ShardIterator(self, worker.id if worker else 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the iterations that start from now on."""
        self.epoch = epoch

    def batches(self, worker: int, epoch: int, step: int = 0) -> Iterator[Batch]:
        """The batches of one worker of this rank in an epoch, from its step ``step`` on."""
        partition = self.partition
        shard = self.rank * partition.workers + worker
        if step == partition.steps:
            return
        first_block, offset = divmod(partition.batch_start(shard, step), self._block_rows)
        blocks = self._blocks(shard, epoch, first_block)
        block = next(blocks)
        for at in range(step, partition.steps):
            missing = partition.batch_start(shard, at + 1) - partition.batch_start(shard, at)
            parts = []
            while missing:
                if offset == len(block):
                    block, offset = next(blocks), 0
                rows = min(missing, len(block) - offset)
                parts.append(block.take(offset, offset + rows))
                offset += rows
                missing -= rows
            stride = int(partition.batch_rows(worker, at).max())
            rows = join(parts)
            rng = np.random.default_rng([self._seed, _TRANSFORMS, epoch, shard, at])
            for transform in self._transforms:
                rows.sequences += transform(rows, rng)
            yield to_batch(rows, self._batch_schema, partition.weight(self.rank, worker, at), stride)

    def _blocks(self, shard: int, epoch: int, first: int) -> Iterator[Block]:
        """The shard's blocks from number ``first`` on: one object, filled anew each time."""
        group_rows = self.groups.rows
        order = epoch_order(len(group_rows), self._seed, epoch) if self._shuffle else np.arange(len(group_rows))
        begin, end = self.partition.cuts[shard : shard + 2].tolist()
        block = Block(self.schema, min(self._block_rows, end - begin))
        with closing(GroupReader(self.groups, self.schema)) as reader:
            for number, start in enumerate(range(begin + first * self._block_rows, end, self._block_rows), first):
                parts = slices(group_rows, order, start, min(start + self._block_rows, end))
                block.fill(reader.read(part) for part in parts)
                if self._shuffle:
                    block.shuffle(row_seed(self._seed, epoch, shard, number))
                yield block


class ShardIterator(Iterator[Batch]):
    """One worker's pass over its shard of an epoch. Its state is the epoch and the number of batches given."""

    def __init__(self, stream: ParquetStream, worker: int):
        self._stream = stream
        self._worker = worker
        self._epoch = stream.epoch
        self._step = 0
        self._batches: Iterator[Batch] | None = None  # opened by the first batch, so that a state can be loaded before

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._stream.batches(self._worker, self._epoch, self._step)
        batch = next(self._batches)
        self._step += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self._epoch, "step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._epoch, self._step, self._batches = state["epoch"], state["step"], None


def _check_columns(schema: Schema) -> None:
    for role, form in (("user", "of one id per row "), ("item", "")):
        if not any(c.role == role and not (c.sequence and form) for c in schema.categorical):
            raise DataError(f"schema of {schema.name}: no column {form}has role {role!r}; batches need one")
    for column in schema.dense:
        if not (column.std > 0 and np.isfinite(column.std) and np.isfinite(column.mean)):
            raise DataError(
                f"schema of {schema.name}: {column.name} has mean = {column.mean}, std = {column.std}, expected finite "
                "numbers and std > 0. Prepare the data again."
            )
