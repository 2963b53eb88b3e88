"""Batches of a split for one rank, with a state that resumes within an epoch."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipeline.batch import Batch
from data_pipeline.errors import DataError
from data_pipeline.schema import Schema
from data_pipeline.streaming.settings import StreamSettings
from data_pipeline.streaming.stream import ParquetStream

State = dict[str, Any]

KEPT_BYTES = 64 << 20  # of an evaluation on every rank


def build_loader(
    folder: Path | str, schema: Schema, split: str, batch_size: int, rank: int = 0, world_size: int = 1, **settings: Any
) -> StreamLoader:
    """Build a rank's loader of one split; see `ParquetStream` for errors, and `StreamSettings` for further settings.

    Example:
        >>> schema = Schema.load("data/movielens_100k")
        >>> for batch in build_loader("data/movielens_100k", schema, "train", 256, shuffle=True):
        ...     train_step(batch)
    """
    return StreamLoader(ParquetStream(folder, schema, split, StreamSettings(batch_size, rank, world_size, **settings)))


class StreamLoader:
    """Iterates over the batches of a `ParquetStream`, one epoch per iteration; its length is the steps of an epoch.

    A state has the epoch and the number of batches yielded. It consists of numbers and strings, is the same on every
    rank, and can be loaded with the same data, seed and global batch size, on any number of ranks and threads.
    """

    def __init__(self, stream: ParquetStream) -> None:
        self.stream = stream
        self.epoch = 0
        self._yielded = 0  # batches before the first of the next iteration

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> EpochIterator:
        """Iterate over the batches of the epoch or, after `load_state_dict`, over its remaining batches."""
        yielded, self._yielded = self._yielded, 0
        return EpochIterator(self.stream, self.epoch, yielded)

    def rows_of(self, first: int, last: int) -> list[int]:
        """Return the rows over all ranks of the batches ``first <= batch < last`` of an epoch."""
        starts = self.stream.plan.partition.lane_starts(np.arange(first, last + 1))
        return np.diff(starts.sum(axis=1)).tolist()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration. A loaded state applies only to its epoch."""
        if epoch != self.epoch:
            self.epoch, self._yielded = epoch, 0

    def load_state_dict(self, state: State) -> None:
        """Continue from a state of `EpochIterator.state_after`: the next iteration yields the remaining batches.

        Raises:
            DataError: The state belongs to another batch size, seed, order or data.
        """
        saved, here = state["stream"], self.stream.fingerprint
        differing = [name for name in here if saved.get(name) != here[name]]
        if differing:
            raise DataError(
                f"loader state: saved with {', '.join(f'{name} = {saved.get(name)}' for name in differing)}, "
                f"loaded with {', '.join(f'{name} = {here[name]}' for name in differing)}: "
                "its position within the epoch refers to other rows. Use the saved values, or start an epoch"
            )
        self.epoch, self._yielded = state["epoch"], state["batches"]


class KeptBatches:
    """Batches that are the same in every iteration, in memory after the first one if they are few.

    Args:
        loader: Loader without shuffling; every iteration starts at its first batch.
        most_bytes: Memory of the batches above which they are read again in every iteration.
    """

    def __init__(self, loader: StreamLoader, most_bytes: int = KEPT_BYTES) -> None:
        self._loader, self._most_bytes = loader, most_bytes
        self._kept: list[Batch] | None = None

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        if self._kept is not None:
            yield from self._kept
            return
        kept, size = [], 0
        for batch in self._loader:
            size += batch.nbytes
            kept.append(batch)
            if size > self._most_bytes:
                kept.clear()
            yield batch
        if size <= self._most_bytes:
            self._kept = kept


class EpochIterator(Iterator[Batch]):
    """Iterates over one epoch, and returns the state after any of its batches.

    A training pipeline takes batches ahead of the training step. A checkpoint needs the state after the last *trained*
    batch, which is before the position of the iterator.
    """

    def __init__(self, stream: ParquetStream, epoch: int, yielded: int) -> None:
        self._batches: Generator[Batch, None, None] = stream.batches(epoch, yielded)
        self._epoch, self._fingerprint = epoch, stream.fingerprint
        self.yielded = yielded  # batches of the epoch so far, including those before a resume

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.yielded += 1
        return batch

    def state_after(self, batches: int) -> State:
        """Return the state after the first ``batches`` batches of the epoch, including those before a resume.

        Raises:
            ValueError: Fewer batches were yielded.
        """
        if not 0 <= batches <= self.yielded:
            raise ValueError(f"state after {batches} batches: only {self.yielded} were yielded")
        return {"epoch": self._epoch, "batches": batches, "stream": self._fingerprint}

    def close(self) -> None:
        """End the iteration and its threads."""
        self._batches.close()
