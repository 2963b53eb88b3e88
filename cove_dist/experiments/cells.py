"""A cell on disk: its state, whether its run matches the grid, and the computation of what is missing.

In addition to the files of training, a run folder has ``cell.log`` (all that its programs printed), ``cell.json``
(state, seconds, error, arguments of the evaluation); a cell is finished when it has the metrics of all its splits.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, get_args

from omegaconf import DictConfig

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.config import RunConfig
from cove_dist.config.changes import changes_learning
from cove_dist.config.overrides import key_of
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError
from cove_dist.evaluation.metrics_files import Split, metrics_path
from cove_dist.experiments.changed import changed_settings
from cove_dist.experiments.common import Overrides
from cove_dist.experiments.grid import Cell, GridConfig, evaluation
from cove_dist.experiments.process import exclusive, reason, run_program, size, tail
from cove_dist.inference.evaluate import check_request
from cove_dist.runs import CHECKPOINTS, CONFIG_FILE, SUMMARY_FILE, read_history, read_json
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from cove_dist.tasks.task import Task
from data_pipeline.json_files import write_json

LOG, RECORD = "cell.log", "cell.json"
_EVALUATED = "evaluated"  # of RECORD: the arguments of the evaluation, by the kind of checkpoint and the split


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


def changes(cell: Cell, config: RunConfig, composed: DictConfig) -> list[str]:
    """Return the settings that differ between the run in the cell's folder and the grid, as ``key: there, here``.

    Also those with which the run learned for a time, before it was resumed with others.

    Args:
        cell: Cell.
        config, composed: Its configuration by the grid, checked and as composed.
    """
    if not (cell.folder / CONFIG_FILE).is_file():
        return []
    there = plain(read_yaml(cell.folder / CONFIG_FILE))
    found = changed_settings(there, config, composed, given=set(map(key_of, cell.overrides)))
    resumed = [record for record in read_history(cell.folder) if changes_learning(record["key"])]
    return found + [f"{each['key']}: {each['old']} there until step {each['step']}" for each in resumed]


def is_stale(cell: Cell, grid: GridConfig) -> bool:
    """Check the cell's configuration; say whether its folder holds a run of another one, which is to be replaced.

    Raises:
        ConfigError: The configuration is wrong, or does not go with ``evaluate``; or another one is there, and the grid
            does not say to replace it; or the run was evaluated otherwise, and the grid does not say to do it again.
    """
    try:
        config, composed = load_run_config(cell.overrides)
        check_request(evaluation(grid.evaluate), task_of(config))
        changed = changes(cell, config, composed)
        if changed and grid.changed == "retrain":
            load_run_config(cell.overrides, replaces=True)
    except ConfigError as error:
        raise ConfigError(f"{cell.name}: {error}") from error
    if changed and grid.changed == "error":
        raise ConfigError(
            f"{cell.folder}: holds a run of another configuration: {'; '.join(changed)}."
            " Give another output, changed=retrain to replace it, or fix the grid file."
        )
    if not changed and not grid.reevaluate:
        _check_evaluated_alike(cell, grid, task_of(config))
    return bool(changed)


def _check_evaluated_alike(cell: Cell, grid: GridConfig, task: Task[Any]) -> None:
    """Refuse metrics that were computed by other arguments; runs of earlier versions do not say by which."""
    for split, there in _evaluated(cell.folder, grid).items():
        if split in grid.splits and _outputs(tuple(there), task) != _outputs(grid.evaluate, task):
            raise ConfigError(
                f"{cell.folder}: split {split} was evaluated with {there}, the grid has {list(grid.evaluate)}: give"
                " reevaluate=true, which needs the checkpoints, or fix the grid file"
            )


def _evaluated(folder: Path, grid: GridConfig) -> dict[str, list[str]]:
    """Return the arguments by which splits were evaluated, of those whose metrics are there and that were recorded."""
    there = read_json(folder / RECORD).get(_EVALUATED, {}).get(grid.checkpoint, {})
    if isinstance(there, list):  # of earlier records, for all splits alike
        there = dict.fromkeys(get_args(Split), there)
    return {split: there[split] for split in there if metrics_path(folder, split, grid.checkpoint).is_file()}


def _outputs(arguments: Overrides, task: Task[Any]) -> tuple[bool, bool]:
    """Return which of its outputs an evaluation makes: metrics by frequency, predictions."""
    request = evaluation(arguments)
    return task.by_frequency if request.by_frequency is None else request.by_frequency, request.save_predictions


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
        with _recorded(folder) as record:
            if not (folder / SUMMARY_FILE).is_file():
                arguments = [*cell.overrides, "trainer.checkpoint.resume=auto"]
                _run("train", arguments, folder, grid, lock, stop)
                if not (folder / SUMMARY_FILE).is_file():  # SIGTERM from elsewhere ends a training with exit code 0
                    raise CellFailed(tail(folder / LOG), reason(folder / LOG))
            evaluated = record[_EVALUATED][grid.checkpoint] = _evaluated(folder, grid)
            for split in grid.splits:
                if grid.reevaluate or not metrics_path(folder, split, grid.checkpoint).is_file():
                    _evaluate(folder, split, grid, lock, stop)
                    evaluated[split] = list(grid.evaluate)
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
def _recorded(folder: Path) -> Iterator[dict[str, Any]]:
    """Keep the seconds taken, over all attempts, how the last one ended, and what the block adds to the record."""
    before = read_json(folder / RECORD)
    started, record = time.monotonic(), {_EVALUATED: before.get(_EVALUATED, {})}
    ended: dict[str, Any] = {"state": "interrupted"}
    try:
        yield record
        ended = {"state": "finished"}
    except CellFailed as error:
        ended = {"state": "failed", "reason": error.reason, "error": str(error)}
        raise
    finally:
        seconds = before.get("seconds", 0.0) + time.monotonic() - started
        write_json(folder / RECORD, ended | record | {"seconds": seconds})


def remove_checkpoints(folder: Path, keep: str) -> None:
    """Remove the checkpoints of a finished run: all of them, or all except the evaluated one."""
    evaluated = {read_json(path).get("checkpoint") for path in folder.glob("metrics_*.json")}
    for path in (folder / CHECKPOINTS).glob("step_*"):
        if keep == "none" or (keep == "best" and path.name not in evaluated):
            CheckpointFolder(path.parent).remove(path)
