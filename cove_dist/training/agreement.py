"""What ranks decide together between two steps: a save that is due, a stop that a signal asked for."""

from __future__ import annotations

import time
from typing import NamedTuple

from cove_dist.distributed import DelayedMaximum, world
from cove_dist.training.signals import StopRequest

_EVERY_STEPS = 3  # an exchange of several ranks; it costs tens of microseconds, more where ranks outnumber the cores


class Decision(NamedTuple):
    """What every rank does after this step.

    Attributes:
        save: write a checkpoint.
        stop: the number of the signal that ends the run; 0 to go on.
    """

    save: bool = False
    stop: int = 0


class Agreement:
    """Lets all ranks act after the same step on what one of them wants.

    Each rank says after every third step what it wants, and learns one step later what any rank wanted. The exchange
    runs meanwhile, among the hosts: no step waits for the device because of it.

    Args:
        request: the signals of this process.
        every_minutes: between saves; None for none by time.
    """

    def __init__(self, request: StopRequest, every_minutes: float | None) -> None:
        self._request = request
        self._seconds = None if every_minutes is None else 60 * every_minutes
        self._saved, self._saved_step = time.monotonic(), 0
        self._exchange = DelayedMaximum()
        self._every = _EVERY_STEPS if world().size > 1 else 1

    def after_step(self, step: int) -> Decision:
        """Return what was agreed on, and say what this rank wants. Collective."""
        save, stop = self._exchange.result() or (0, 0)
        due = self._seconds is not None and time.monotonic() - self._saved >= self._seconds
        if step % self._every == 0:
            self._exchange.start([int(due), self._request.number])
        return Decision(bool(save) and step > self._saved_step + 1, stop)

    def note_saved(self, step: int) -> None:
        """Start the time to the next save; what was wanted before this one is met by it."""
        self._saved, self._saved_step = time.monotonic(), step

    def close(self) -> int:
        """Return the signal that some rank received by now, 0 for none. Collective."""
        self._exchange.result()
        self._exchange.start([0, self._request.number])
        _, stop = self._exchange.result() or (0, 0)
        self._exchange.close()
        return stop
