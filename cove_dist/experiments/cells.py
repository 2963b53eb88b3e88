"""A cell on disk: its state, whether its run matches the grid, and the computation of what is missing.

In addition to the files of training, a run folder has ``cell.log`` (all that its programs printed), ``cell.json``
(state, seconds, error); a cell is finished when it has the metrics of all its splits.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.config.overrides import flat
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError
from cove_dist.evaluation.metrics_files import metrics_path
from cove_dist.experiments.grid import Cell, GridConfig
from cove_dist.experiments.process import exclusive, reason, run_program, size, tail
from cove_dist.runs import CONFIG_FILE, SUMMARY_FILE, read_json
from cove_dist.tasks.configuration import load_run_config
from data_pipeline.json_files import write_json

LOG, RECORD = "cell.log", "cell.json"
# Keys that do not change what a run computes.
_ANY_VALUE = ("output", "trainer.checkpoint", "trainer.early_stopping.mode")
# Sections whose keys are not the same for all runs, in which a key that only one of the configurations has is a change,
# except defaults, which earlier versions did not have.
_OPEN = ("loss", "embeddings.pooling", "embeddings.sharding")


class CellFailed(Exception):
    """A program of the cell ended with an error.

    Attributes:
        reason: Reason in one line. The message is the end of its log.
    """

    def __init__(self, log: str, reason: str) -> None:
        super().__init__(log)
        self.reason = reason


def is_finished(cell: Cell, grid: GridConfig) -> bool:
    return all(metrics_path(cell.folder, split, grid.checkpoint).is_file() for split in grid.splits)


def state(cell: Cell, grid: GridConfig) -> str:
    """Return ``finished``, ``failed``, ``begun`` or ``missing``."""
    if is_finished(cell, grid):
        return "finished"
    if read_json(cell.folder / RECORD).get("state") == "failed":
        return "failed"
    return "begun" if (cell.folder / CONFIG_FILE).is_file() else "missing"


def failure(cell: Cell) -> str:
    """Return why the cell failed, in one line."""
    return read_json(cell.folder / RECORD).get("reason") or f"see {cell.folder / LOG}"


def changes(cell: Cell) -> list[str]:
    """Return the settings that differ between the run in the cell's folder and the grid, as ``key: there, here``.

    A key that the run's configuration lacks, because it did not exist then, counts only where the grid
    sets it.

    Raises:
        ConfigError: The grid's configuration of the cell is wrong.
    """
    try:
        composed = load_run_config(cell.overrides)[1]
    except ConfigError as error:
        raise ConfigError(f"{cell.name}: {error}") from error
    if not (cell.folder / CONFIG_FILE).is_file():
        return []
    here = flat(plain(composed))
    there = flat(plain(read_yaml(cell.folder / CONFIG_FILE)))
    given = {override.split("=")[0].lstrip("+") for override in cell.overrides}
    compared = [key for key in here if (key in there or key in given) and not _is_within(key, _ANY_VALUE)]
    compared += [key for key in {**here, **there} if _is_within(key, _OPEN) and not key.endswith(".default")]
    return [
        f"{key}: {there.get(key)} there, {here.get(key)} here"
        for key in dict.fromkeys(compared)
        if there.get(key) != here.get(key)
    ]


def _is_within(key: str, sections: tuple[str, ...]) -> bool:
    return any(key == section or key.startswith(section + ".") for section in sections)


def is_stale(cell: Cell, grid: GridConfig) -> bool:
    """Check the cell's configuration; say whether its folder holds a run of another one, which is to be replaced.

    Raises:
        ConfigError: The configuration is wrong, or another one is there and the grid does not say to replace it.
    """
    changed = changes(cell)
    if changed and grid.changed == "error":
        raise ConfigError(
            f"{cell.folder}: holds a run of another configuration: {'; '.join(changed)}."
            " Give another output, changed=retrain to replace it, or fix the grid file."
        )
    return bool(changed)


def compute(cell: Cell, grid: GridConfig, stop: Event, *, replace: bool = False) -> bool:
    """Train what is not trained, evaluate what is not evaluated; returns whether there was anything to do.

    Args:
        cell, grid: The cell to compute, and its grid.
        stop: Ends it.
        replace: Remove first what the folder holds.

    Raises:
        CellFailed: A program failed.
        Interrupted: ``stop`` was set; the training can be resumed.
    """
    folder = cell.folder
    with exclusive(folder.parent / f".{folder.name}.lock", stop) as lock:
        if replace:
            shutil.rmtree(folder)
        if is_finished(cell, grid) and not grid.reevaluate:
            return False
        folder.mkdir(parents=True, exist_ok=True)
        with _recorded(folder):
            if not (folder / SUMMARY_FILE).is_file():
                arguments = [*cell.overrides, "trainer.checkpoint.resume=auto"]
                _run("train", arguments, folder, grid, lock, stop)
                if not (folder / SUMMARY_FILE).is_file():  # SIGTERM from elsewhere ends a training with exit code 0
                    raise CellFailed(tail(folder / LOG), reason(folder / LOG))
            for split in grid.splits:
                if grid.reevaluate or not metrics_path(folder, split, grid.checkpoint).is_file():
                    _evaluate(folder, split, grid, lock, stop)
        remove_checkpoints(folder, grid.keep_checkpoints)
    return True


def _evaluate(folder: Path, split: str, grid: GridConfig, lock: int, stop: Event) -> None:
    device = read_yaml(folder / CONFIG_FILE).trainer.device
    arguments = [f"run={folder}", f"split={split}", f"device={device}", *grid.evaluate]
    _run("evaluate", arguments, folder, grid, lock, stop)


def _run(name: str, arguments: list[str], folder: Path, grid: GridConfig, lock: int, stop: Event) -> None:
    log = folder / LOG
    start = size(log)
    if run_program(name, arguments, log, grid, lock=lock, stop=stop):
        raise CellFailed(tail(log), reason(log, start))


@contextmanager
def _recorded(folder: Path) -> Iterator[None]:
    """Keep the seconds taken, over all attempts, and how the last one ended."""
    before = read_json(folder / RECORD).get("seconds", 0.0)
    started, record = time.monotonic(), {"state": "interrupted"}
    try:
        yield
        record = {"state": "finished"}
    except CellFailed as error:
        record = {"state": "failed", "reason": error.reason, "error": str(error)}
        raise
    finally:
        record |= {"seconds": before + time.monotonic() - started}
        write_json(folder / RECORD, record)


def remove_checkpoints(folder: Path, keep: str) -> None:
    """Remove the checkpoints of a finished run: all of them, or all except the evaluated one."""
    evaluated = {read_json(path).get("checkpoint") for path in folder.glob("metrics_*.json")}
    for path in (folder / "checkpoints").glob("step_*"):
        if keep == "none" or (keep == "best" and path.name not in evaluated):
            CheckpointFolder(path.parent).remove(path)
