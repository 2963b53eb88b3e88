"""Handling of SIGTERM and SIGINT: deferred to the end of a step, when the state can be saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Under torchrun, Ctrl-C reaches a rank twice: from the terminal, and from the agent that passes it on.
_REPEATED_SECONDS = 3.0


class Interrupted(KeyboardInterrupt):
    """A signal ended the program cleanly.

    Attributes:
        exit_code: 0 after SIGTERM, which schedulers send before a restart; 130 after SIGINT (Ctrl-C).
    """

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 130 if number == signal.SIGINT else 0


class StopRequest:
    """The first signal that this process received.

    Attributes:
        number: Number of the signal; 0 before one arrives.
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0

    def note(self, number: int, _: FrameType | None) -> None:
        """Record a signal; a second Ctrl-C, seconds after the first, does not wait for the end of a step.

        Raises:
            KeyboardInterrupt: This is the second Ctrl-C.
        """
        now = time.monotonic()
        if self.number == 0:
            self.number, self._since = number, now
        elif number == signal.SIGINT and now - self._since > _REPEATED_SECONDS:
            raise KeyboardInterrupt


@contextmanager
def deferred_signals() -> Iterator[StopRequest]:
    """Record SIGTERM and SIGINT instead of ending the process."""
    request = StopRequest()
    with _handlers(request.note):
        yield request


@contextmanager
def named_signals(what: str) -> Iterator[None]:
    """Raise `Interrupted` at SIGTERM and SIGINT.

    Args:
        what: Text for the message, after the name of the signal.
    """

    stop: Interrupted | None = None

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal stop
        stop = Interrupted(number, f"{signal.Signals(number).name}: {what}")
        raise stop

    with _handlers(interrupt):
        try:
            yield
        except Exception as error:
            if stop is not None:  # a library, such as DuckDB, raises its own error
                raise stop from error
            raise


@contextmanager
def _handlers(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle both signals in the block; do nothing outside the main thread, where Python has no handlers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
