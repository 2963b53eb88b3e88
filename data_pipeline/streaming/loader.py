"""Batches of a split for one rank, with a state that resumes inside an epoch."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

from data_pipeline.batch import Batch
from data_pipeline.errors import DataError
from data_pipeline.schema import Schema
from data_pipeline.streaming.stream import SHUFFLE_BUFFER, ParquetStream
from data_pipeline.streaming.transforms import RowTransform

State = dict[str, Any]


def build_loader(
    folder: Path | str,
    schema: Schema,
    split: str,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    *,
    workers: int = 0,
    seed: int = 0,
    shuffle: bool = False,
    shuffle_buffer: int = SHUFFLE_BUFFER,
    group_by_user: bool = False,
    pin_memory: bool = False,
    transforms: Sequence[RowTransform] = (),
) -> StreamLoader:
    """A rank's loader of one split; the arguments and errors of `ParquetStream`."""
    stream = ParquetStream(
        folder,
        schema,
        split,
        batch_size,
        rank=rank,
        world_size=world_size,
        workers=workers,
        seed=seed,
        shuffle=shuffle,
        shuffle_buffer=shuffle_buffer,
        group_by_user=group_by_user,
        pin_memory=pin_memory,
        transforms=transforms,
    )
    return StreamLoader(stream)


class StreamLoader:
    """The batches of a `ParquetStream`, an epoch an iteration; ``len(loader)`` is the steps of an epoch.

    A state names the epoch and the batches given. It is plain numbers and strings, the same on every rank, and fits the
    data, seed and global batch that it was taken with, on any number of ranks and threads.
    """

    def __init__(self, stream: ParquetStream) -> None:
        self.stream = stream
        self.epoch = 0
        self._given = 0  # batches before the next iteration's first

    def __len__(self) -> int:
        return len(self.stream)

    def __iter__(self) -> EpochIterator:
        """The epoch's batches, or those left of it after `load_state_dict`."""
        given, self._given = self._given, 0
        return EpochIterator(self.stream, self.epoch, given)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration. A loaded state stays in force only within its own epoch."""
        if epoch != self.epoch:
            self.epoch, self._given = epoch, 0

    def load_state_dict(self, state: State) -> None:
        """Go to the epoch of an `EpochIterator.state_after`; the next iteration gives exactly the batches left of it.

        Raises:
            DataError: the state belongs to another batch size, seed, order or data.
        """
        saved, here = state["stream"], self.stream.fingerprint
        differing = [name for name in here if saved.get(name) != here[name]]
        if differing:
            raise DataError(
                f"loader state: saved with {', '.join(f'{name} = {saved.get(name)}' for name in differing)}, "
                f"loaded with {', '.join(f'{name} = {here[name]}' for name in differing)}: "
                "its position inside an epoch means other rows here. Use the saved values, or begin an epoch."
            )
        self.epoch, self._given = state["epoch"], state["batches"]


class EpochIterator(Iterator[Batch]):
    """One pass over an epoch that can tell the state after each of its batches.

    A training pipeline takes batches ahead of the step it trains. A checkpoint needs the state after the last batch
    *trained*, which the iterator has left behind.
    """

    def __init__(self, stream: ParquetStream, epoch: int, given: int) -> None:
        self._batches: Generator[Batch, None, None] = stream.batches(epoch, given)
        self._epoch, self._fingerprint = epoch, stream.fingerprint
        self.given = given  # batches of the epoch so far, those before a resume included

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self.given += 1
        return batch

    def state_after(self, batches: int) -> State:
        """The state after the first ``batches`` batches of the epoch, those before a resume included.

        Raises:
            ValueError: more than were given.
        """
        if not 0 <= batches <= self.given:
            raise ValueError(f"state after {batches} batches: {self.given} were given")
        return {"epoch": self._epoch, "batches": batches, "stream": self._fingerprint}

    def close(self) -> None:
        """End the pass, and its threads."""
        self._batches.close()
