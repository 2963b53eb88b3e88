"""Agreement among ranks after a step or a batch of a validation: whether to save or validate, and whether to stop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, TypeVar

from cove_dist.distributed import DelayedMaximum, world
from cove_dist.faults.signals import StopRequest

_EVERY_STEPS = 3  # exchange among ranks: tens of microseconds, more if ranks outnumber the cores


T = TypeVar("T")


class EvaluationStopped(Exception):
    """A rank received a signal during an evaluation in training; raised on every rank after the same batch.

    Attributes:
        number: Number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Decision(NamedTuple):
    """What every rank does after this step.

    Attributes:
        save: Whether to write a checkpoint.
        validate: Whether to evaluate the validation split.
        stop: Number of the signal that ends the run; 0 to continue.
    """

    save: bool = False
    validate: bool = False
    stop: int = 0


class _Timer:
    """Says when so many minutes have passed on this rank, and whether a request was made before the work was done.

    Args:
        every_minutes: Minutes; None: never.
    """

    def __init__(self, every_minutes: float | None) -> None:
        self._seconds = None if every_minutes is None else 60 * every_minutes
        self._since, self._step = time.monotonic(), 0

    def due(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._since >= self._seconds

    def reset(self, step: int) -> None:
        self._since, self._step = time.monotonic(), step

    def newer(self, step: int) -> bool:
        """Return whether a request that arrives at a step was made after the last restart."""
        return step > self._step + 1


class Agreement:
    """Makes all ranks act after the same step on a request of any rank.

    Each rank sends its request after every third step and receives the requests of all ranks one step later. The
    exchange runs in the background among the hosts, so no step waits for the device.

    Args:
        request: Signals received by this process.
        every_minutes: Minutes between saves; None: no saves by time.
        validate_every_minutes: Minutes between validations; None: no validations by time.
    """

    def __init__(
        self, request: StopRequest, every_minutes: float | None, validate_every_minutes: float | None = None
    ) -> None:
        self._request = request
        self._saves, self._validations = _Timer(every_minutes), _Timer(validate_every_minutes)
        self._exchange = DelayedMaximum()
        self._every = _EVERY_STEPS if world().size > 1 else 1

    def after_step(self, step: int) -> Decision:
        """Return the decision and send this rank's request. Collective."""
        save, validate, stop = self._exchange.result() or (0, 0, 0)
        if step % self._every == 0:
            self._exchange.start([int(self._saves.due()), int(self._validations.due()), self._request.number])
        return Decision(bool(save) and self._saves.newer(step), bool(validate) and self._validations.newer(step), stop)

    @contextmanager
    def stopping_evaluation(self) -> Iterator[None]:
        """Let a signal end an evaluation in the block, between two batches of `interruptible`."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def after_batch(self, batch: int) -> None:
        """Send this rank's signal. Collective, at the same batches on every rank.

        Args:
            batch: Number of the batch, from 1.

        Raises:
            EvaluationStopped: A rank has received a signal.
        """
        *_, stop = self._exchange.result() or (0, 0, 0)
        if stop:
            raise EvaluationStopped(stop)
        if batch % self._every == 0:
            self._exchange.start([0, 0, self._request.number])

    def note_saved(self, step: int) -> None:
        """Restart the save interval and drop save requests made before this save."""
        self._saves.reset(step)

    def note_validated(self, step: int) -> None:
        """Restart the interval of validations and drop requests made before this one."""
        self._validations.reset(step)

    def close(self) -> int:
        """Return the signal that any rank has received, or 0. Collective."""
        self._exchange.result()
        self._exchange.start([0, 0, self._request.number])
        *_, stop = self._exchange.result() or (0, 0, 0)
        self._exchange.close()
        return stop


_current: ContextVar[Agreement | None] = ContextVar("agreement of the evaluation that a signal may end", default=None)


def interruptible(batches: Iterable[T]) -> Iterator[T]:
    """Yield the batches of an evaluation, as many on every rank; in training, a signal ends it between two batches.

    Raises:
        EvaluationStopped: As in `Agreement.after_batch`.
    """
    agreement = _current.get()
    for number, batch in enumerate(batches, start=1):
        yield batch
        if agreement is not None:
            agreement.after_batch(number)
