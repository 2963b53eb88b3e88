"""Threads that end a rank which would wait forever: torchrun has exited, or another rank no longer responds."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from cove_dist.errors import LostRankError

_PARENT_SECONDS = 1.0  # between two checks
_GRACE_SECONDS = 30.0  # to save and exit after SIGTERM; the same as torchrun's
_BEAT_SECONDS = 5.0
_DONE = b"done"


class Store(Protocol):
    """The part of ``torch.distributed.Store`` that is used."""

    def set(self, key: str, value: str, /) -> None: ...

    def get(self, key: str, /) -> bytes: ...

    def check(self, keys: list[str], /) -> bool: ...


def abort_process(message: str) -> None:
    """Print an error and end the process immediately, even if other threads are blocked."""
    print(f"error (rank {os.environ.get('RANK', '0')}): {message}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)


@contextmanager
def watched_parent() -> Iterator[None]:
    """Under torchrun, send this process SIGTERM when its agent has exited; end it if that has no effect.

    Without torchrun a process may outlive its parent, as under ``nohup``, so nothing is watched.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield
        return
    stop, parent = threading.Event(), os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            if stop.wait(_PARENT_SECONDS):
                return
        print(f"rank {os.environ.get('RANK')}: torchrun is gone; stopping", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)
        if not stop.wait(_GRACE_SECONDS):
            abort_process(f"not stopped {_GRACE_SECONDS:.0f} s after torchrun was gone")

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


@contextmanager
def watched_ranks(
    store: Store, connect: Callable[[Store], Store], rank: int, size: int, timeout: timedelta
) -> Iterator[None]:
    """Name the missing rank when a collective times out.

    Args:
        store: Store shared by all ranks.
        connect: Function that returns the same store through a separate connection.
        rank, size: Rank of this process and number of ranks.
        timeout: Timeout of the collectives.

    Raises:
        LostRankError: A collective timed out.
    """
    if size == 1:
        yield
        return
    heartbeat = Heartbeat(connect(store), rank, size, timeout)
    try:
        yield
    except RuntimeError as error:
        if "timed out" not in str(error).lower():
            raise
        missing = " and ".join(f"rank {absent}" for absent in absent_ranks(store, rank, size))
        raise LostRankError(
            f"waited {timeout.total_seconds():.0f} s (trainer.timeout_seconds) for {missing or 'another rank'}, which"
            " runs and did not come; see where it is, for instance by py-spy dump"
        ) from error
    heartbeat.close()


class Heartbeat:
    """Tells the next rank that this process runs, and watches the previous one.

    Beats come from a separate thread, so a rank in a long computation continues to beat; a stopped rank, or one whose
    host is lost, does not. Silence is counted in this rank's beats: after a whole job was suspended and resumed, no
    rank appears silent.

    Args:
        store: Store shared by all ranks; used only by the thread.
        rank, size: Rank of this process and number of ranks.
        timeout: Time of silence after which a rank counts as lost.
        end: Function called with a message when the watched rank is lost; should not return.
    """

    def __init__(
        self, store: Store, rank: int, size: int, timeout: timedelta, end: Callable[[str], None] = abort_process
    ) -> None:
        self._store, self._end = store, end
        self._rank, self._watched = rank, (rank + 1) % size
        self._timeout = timeout.total_seconds()
        self._seconds = min(_BEAT_SECONDS, self._timeout / 8)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Announce that this rank is done, so that its silence is ignored."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        beats, last, silent = 0, None, 0
        try:
            while not self._stop.wait(self._seconds):
                beats += 1
                self._store.set(_key(self._rank), str(beats))
                seen = self._store.get(_key(self._watched)) if self._store.check([_key(self._watched)]) else None
                silent = silent + 1 if seen == last else 0
                last = seen
                # Two beats early: before the collectives that wait for the lost rank fail without its name
                if seen != _DONE and silent * self._seconds >= self._timeout - 2 * self._seconds:
                    self._end(
                        f"rank {self._watched} has not answered for {self._timeout:.0f} s (trainer.timeout_seconds): it"
                        " was stopped, its host does not respond, or the network is down"
                    )
                    return
            self._store.set(_key(self._rank), _DONE.decode())
        except RuntimeError:  # the store's process has exited, which is detected elsewhere
            return


def absent_ranks(store: Store, rank: int, size: int, seconds: float = 3.0) -> list[int]:
    """Return the ranks that do not call this function too: after a collective timed out, those that never joined it.

    Returns no ranks if the store is unavailable.

    Args:
        store: Store shared by all ranks.
        rank, size: Rank of this process and number of ranks.
        seconds: Time to wait for the others.
    """
    try:
        store.set(f"waited/{rank}", "")
        time.sleep(seconds)
        return [other for other in range(size) if other != rank and not store.check([f"waited/{other}"])]
    except RuntimeError:  # the store is gone
        return []


def _key(rank: int) -> str:
    return f"heartbeat/{rank}"
