"""Handling of SIGTERM, SIGINT and SIGHUP: at once, or deferred to the end of a step, when the state can be saved."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Under torchrun, Ctrl-C reaches a rank twice: from the terminal, and from the agent that passes it on.
_REPEATED_SECONDS = 3.0


class Interrupted(KeyboardInterrupt):
    """A signal ended the program cleanly.

    Args:
        number: Number of the signal.
        message: What was stopped, in one line.
        resumable: Whether the same command continues the work: then SIGTERM, which schedulers send before a restart,
            is no failure.

    Attributes:
        exit_code: 128 + ``number``, as of shells: 130 after SIGINT (Ctrl-C); 0 after SIGTERM if ``resumable``.
    """

    def __init__(self, number: int, message: str, *, resumable: bool = False) -> None:
        super().__init__(message)
        self.exit_code = 0 if resumable and number == signal.SIGTERM else 128 + number


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
def deferred_signals(request: StopRequest | None = None) -> Iterator[StopRequest]:
    """Record signals in a request, by default a new one, instead of ending the process."""
    request = request or StopRequest()
    with _handlers(request.note):
        yield request


@contextmanager
def named_signals(what: str, *, resumable: bool = False) -> Iterator[None]:
    """Raise `Interrupted` at the first signal. Those of the next seconds are ignored: files are removed meanwhile.

    Args:
        what: Text for the message, after the name of the signal.
        resumable: As in `Interrupted`.
    """

    stop: Interrupted | None = None
    last = -_REPEATED_SECONDS

    def interrupt(number: int, _: FrameType | None) -> None:
        nonlocal stop, last
        before, last = last, time.monotonic()
        if stop is None or last - before > _REPEATED_SECONDS:
            stop = Interrupted(number, f"{signal.Signals(number).name}: {what}", resumable=resumable)
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
    """Handle the signals in the block; do nothing outside the main thread, where Python has no handlers.

    SIGHUP that is ignored, as under ``nohup``, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
    before = {number: signal.getsignal(number) for number in SIGNALS if number not in ignored}
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, signal.SIG_DFL if old is None else old)
