"""Batches of a split for one rank, with a state that resumes inside an epoch."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torchdata.stateful_dataloader import StatefulDataLoader

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
    """A rank's loader of one split; the arguments and errors of `ParquetStream`.

    Args:
        batch_size: rows per rank and step.
        workers: processes that read ahead, taking turns; 0 reads in the calling process.
        pin_memory: page-locked batches, for copies to an accelerator.
    """
    stream = ParquetStream(
        folder,
        schema,
        split,
        batch_size,
        rank=rank,
        world_size=world_size,
        num_workers=workers,
        seed=seed,
        shuffle=shuffle,
        shuffle_buffer=shuffle_buffer,
        group_by_user=group_by_user,
        transforms=transforms,
    )
    return StreamLoader(stream, workers, seed, pin_memory)


class StreamLoader(StatefulDataLoader[Batch]):
    """A `StatefulDataLoader` of the batches of a `ParquetStream`; ``len(loader)`` is this rank's steps in an epoch.

    A state names the epoch and the batches given. It is plain numbers and strings, the same on every rank, and fits
    only the ``world_size``, ``workers``, ``batch_size``, ``seed`` and data it was taken with: with others, "the first n
    batches" are other rows. To go on with other ones, start at the beginning of an epoch.
    """

    def __init__(self, stream: ParquetStream, workers: int, seed: int, pin_memory: bool):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "'set_vital' is deprecated")  # torchdata's call, harmless
            super().__init__(
                stream,
                batch_size=None,  # the stream makes batches
                num_workers=workers,
                pin_memory=pin_memory,
                generator=torch.Generator().manual_seed(seed),  # the default would draw from the model's random numbers
                snapshot_every_n_steps=1,
            )
        self.stream = stream

    def __iter__(self) -> EpochIterator:
        """The epoch's batches, or those left of it after `load_state_dict`."""
        return EpochIterator(super().__iter__(), self.stream.epoch, self.stream.fingerprint)

    @property
    def epoch(self) -> int:
        return self.stream.epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch of the next iteration. A loaded state stays in force only within its own epoch."""
        if epoch != self.stream.epoch:
            self.stream.set_epoch(epoch)
            super().load_state_dict({})  # drops an iterator made ahead of the iteration
            self.next_iter_state = None

    def state_dict(self) -> State:
        """The state after the last batch given by the current iteration; see `EpochIterator.state_after`."""
        super().state_dict()  # makes the iterator if there is none yet
        return _state(self._iterator, self.stream.epoch, self.stream.fingerprint)

    def load_state_dict(self, state_dict: State) -> None:
        """Go to the state's epoch; the next iteration gives exactly the batches left of it.

        Raises:
            DataError: the state belongs to other ranks, workers, batch size, seed or data.
        """
        saved, here = state_dict["stream"], self.stream.fingerprint
        differing = [name for name in here if saved.get(name) != here[name]]
        if differing:
            raise DataError(
                f"loader state: saved with {', '.join(f'{name} = {saved.get(name)}' for name in differing)}, "
                f"loaded with {', '.join(f'{name} = {here[name]}' for name in differing)}: "
                "its place inside an epoch means other rows here. Use the saved values, or begin an epoch."
            )
        self.set_epoch(state_dict["epoch"])
        super().load_state_dict(state_dict["loader"])


class EpochIterator(Iterator[Batch]):
    """One pass over an epoch that can tell the state after each of its latest batches.

    A training pipeline takes batches ahead of the step it trains. A checkpoint needs the state after the last batch
    *trained*, which the loader itself has left behind.
    """

    KEPT = 32  # states; more than the batches any pipeline holds

    def __init__(self, batches: Iterator[Batch], epoch: int, fingerprint: dict[str, object]):
        self._batches = batches
        self._identity = (epoch, fingerprint)
        self._states: deque[State] = deque([_state(batches, *self._identity)], self.KEPT)

    def __next__(self) -> Batch:
        batch = next(self._batches)
        self._states.append(_state(self._batches, *self._identity))
        return batch

    @property
    def given(self) -> int:
        """Batches of the epoch given so far, those before a resume included."""
        return self._states[-1]["batches"]

    def state_after(self, batches: int) -> State:
        """The state after the first ``batches`` batches of the epoch, those before a resume included.

        Raises:
            ValueError: not among the last `KEPT` states of this pass.
        """
        oldest = self._states[0]["batches"]
        if not oldest <= batches <= self.given:
            raise ValueError(f"state after {batches} batches: only those after {oldest} to {self.given} are kept")
        return self._states[batches - oldest]


def _state(iterator: Any, epoch: int, fingerprint: dict[str, object]) -> State:
    return {
        "epoch": epoch,
        "batches": iterator._num_yielded,
        "stream": fingerprint,
        "loader": iterator.state_dict(),
    }
