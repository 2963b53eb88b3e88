"""What preparation shows while it works: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn

LINE_EVERY = 30.0  # seconds between the lines about one stage
_POLL = 0.5


class Stages:
    """Says a line when a stage begins, and how far it is every `LINE_EVERY` seconds.

    Args:
        say: Receives the lines.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._stage, self._said = "", 0.0

    def begin(self, stage: str) -> None:
        """Begin a stage; the one before has ended."""
        self._stage, self._said = stage, time.monotonic()
        self._say(stage)

    def advance(self, percent: float) -> None:
        """Note how much of the query of this stage is done; a stage may have several queries."""
        if time.monotonic() - self._said >= LINE_EVERY:
            self._said = time.monotonic()
            self._say(f"{self._stage}: {percent:.0f} %")


class Bar(Stages):
    """Shows the stage, its share and the time since the start in the last line of a terminal, besides the lines."""

    def __init__(self, say: Callable[[str], None], progress: Progress) -> None:
        super().__init__(say)
        self._progress = progress
        self._task = progress.add_task("", total=100)

    def begin(self, stage: str) -> None:
        super().begin(stage)
        self._progress.update(self._task, description=stage, completed=0)

    def advance(self, percent: float) -> None:
        self._progress.update(self._task, completed=percent)


@contextmanager
def shown(console: Console, say: Callable[[str], None]) -> Iterator[Stages]:
    """Yield the stages of a preparation, with a bar where ``console`` is a terminal."""
    if not console.is_terminal:
        yield Stages(say)
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(say, progress)


@contextmanager
def watched(connection: duckdb.DuckDBPyConnection, on_percent: Callable[[float], None]) -> Iterator[None]:
    """Report how much of the running query is done, from another thread, while the block runs."""
    connection.execute("SET enable_progress_bar = true")
    connection.execute("SET enable_progress_bar_print = false")
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_POLL):
            if (percent := connection.query_progress()) >= 0:  # -1: no query runs
                on_percent(percent)

    thread = threading.Thread(target=watch, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
