"""What an experiment says while it runs: a bar with the time left on a terminal, a log line a job everywhere."""

from __future__ import annotations

import heapq
import logging
import statistics
import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cove_dist.console import console

logger = logging.getLogger(__name__)


class Estimate:
    """Seconds that the jobs not yet done will take: each what jobs of its kind took that are done.

    Args:
        left: The kind of every job not yet done.
        seconds: Seconds of jobs done before, by kind.
        at_once: Jobs that run at the same time.
    """

    def __init__(self, left: Sequence[str], seconds: Mapping[str, Sequence[float]], at_once: int) -> None:
        self._left = list(left)
        self._seconds = {kind: list(values) for kind, values in seconds.items()}
        self._at_once = at_once

    def done(self, kind: str, seconds: float | None) -> None:
        """Count a job that ended, and its time; None if it says nothing about other jobs."""
        self._left.remove(kind)
        if seconds is not None:
            self._seconds.setdefault(kind, []).append(seconds)

    def remaining(self, running: Sequence[tuple[str, float]] = ()) -> float | None:
        """Return the estimated seconds until the last job ends; None while no job of any kind is done.

        Args:
            running: The kind of every job that runs, and the seconds since it began.
        """
        known = [value for values in self._seconds.values() for value in values]
        if not known:
            return None
        anything = statistics.mean(known)
        expected = {kind: statistics.mean(self._seconds.get(kind) or [anything]) for kind in self._left}
        waiting = list(self._left)
        for kind, _ in running:
            waiting.remove(kind)
        ends = [max(0.0, expected[kind] - elapsed) for kind, elapsed in running]
        ends = sorted(ends + [0.0] * (self._at_once - len(ends)))
        for kind in waiting:  # each begins when the first of those before it ends
            heapq.heapreplace(ends, ends[0] + expected[kind])
        return max(ends)


class JobProgress:
    """Shows jobs done, those running, and the time left."""

    def __init__(self, title: str, total: int, done: int, estimate: Estimate) -> None:
        self.estimate = estimate
        self._total, self._done = total, done
        self._running: dict[str, tuple[str, float]] = {}
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(title, total=total, completed=done, left="")

    def __enter__(self) -> JobProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, name: str, kind: str) -> None:
        self._running[name] = kind, time.monotonic()
        if not console.is_terminal:
            logger.info("Starting %s", name)

    def finish(self, name: str, kind: str, text: str, *, counts: bool = True) -> None:
        """Count a job that ended.

        Args:
            name, kind: Name and kind of the job.
            text: Outcome of the job.
            counts: Whether its time tells how long others will take.
        """
        seconds = time.monotonic() - self._running.pop(name)[1]
        self.estimate.done(kind, seconds if counts else None)
        self._done += 1
        left = self._left()
        logger.info("%d/%d  %s: %s, %s%s", self._done, self._total, name, text, duration(seconds), left and f"; {left}")

    def refresh(self) -> None:
        """Redraw the bar."""
        running = ", ".join(self._running)
        self._bar.update(self._task, completed=self._done, left=f"{self._left()}  {running}")

    def _left(self) -> str:
        """Return the estimate; nothing if the running jobs, the last ones, take longer than it said."""
        now = time.monotonic()
        remaining = self.estimate.remaining([(kind, now - started) for kind, started in self._running.values()])
        if remaining is None or round(remaining) == 0:
            return ""
        return f"about {duration(remaining)} left"


def duration(seconds: float) -> str:
    """Format a duration, such as ``45 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
