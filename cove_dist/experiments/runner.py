"""Computes a grid's cells, several at a time; one that fails does not lose the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from threading import Event

from cove_dist.evaluation.metrics_files import load_metrics
from cove_dist.experiments.cells import RECORD, CellFailed, compute, is_finished
from cove_dist.experiments.grid import Cell, GridConfig
from cove_dist.experiments.progress import Estimate, JobProgress
from cove_dist.experiments.text import number
from cove_dist.faults.signals import named_signals
from cove_dist.runs import read_json

_REDRAW_SECONDS = 0.5


@contextmanager
def stopping() -> Iterator[Event]:
    """Yield an event for the threads that work in the block, set when it ends; a signal raises `Interrupted`."""
    stop = Event()
    with named_signals("stopped; the same command continues"):
        try:
            yield stop
        finally:
            stop.set()


def in_parallel(jobs: Sequence[Callable[[], None]], at_once: int, stop: Event, on_wait: Callable[[], None]) -> None:
    """Run the jobs on threads; call ``on_wait`` twice a second meanwhile.

    The first error of a job, or Ctrl-C, sets ``stop``, and is raised when all running jobs have ended.
    """
    executor = ThreadPoolExecutor(max_workers=at_once)
    left: set[Future[None]] = {executor.submit(job) for job in jobs}
    try:
        while left:
            done, left = wait(left, timeout=_REDRAW_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            on_wait()
    except BaseException:
        stop.set()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


def run_cells(
    cells: Sequence[Cell], stale: set[str], grid: GridConfig, after_each: Callable[[], None]
) -> dict[str, str]:
    """Compute what is not finished; returns the error of every cell that failed, by its name.

    Args:
        cells, grid: The cells to compute, and their grid.
        stale: Names of cells whose folders hold runs of other configurations; taken out as they are replaced.
        after_each: Called when a cell has ended, on its thread.
    """
    pending = [c for c in cells if c.name in stale or grid.reevaluate or not is_finished(c, grid)]
    seconds: dict[str, list[float]] = {}
    for cell in cells:
        if cell not in pending:
            seconds.setdefault(cell.model, []).append(read_json(cell.folder / RECORD).get("seconds", 0.0))
    estimate = Estimate([cell.model for cell in pending], {} if grid.reevaluate else seconds, grid.jobs)
    failures: dict[str, str] = {}
    with stopping() as stop, JobProgress(grid.title, len(cells), len(cells) - len(pending), estimate) as progress:

        def job(cell: Cell) -> None:
            progress.begin(cell.name, cell.model)
            try:
                computed = compute(cell, grid, stop, replace=cell.name in stale)
            except CellFailed as error:
                failures[cell.name] = str(error)
                progress.finish(cell.name, cell.model, f"failed:\n{error}\n", counts=False)
            else:
                text = _outcome(cell, grid) if computed else "finished by another process"
                progress.finish(cell.name, cell.model, text, counts=computed)
            stale.discard(cell.name)
            after_each()

        in_parallel([partial(job, cell) for cell in pending], grid.jobs, stop, progress.refresh)
    return failures


def _outcome(cell: Cell, grid: GridConfig) -> str:
    metric, split = grid.metrics[0], grid.splits[0]
    value = load_metrics(cell.folder, split, grid.checkpoint).metrics.get(metric)
    return "finished" if value is None else f"{split} {metric} {number(value)}"
