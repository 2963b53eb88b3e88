"""Checkpoint folders of a run: which are complete, which is the best, which are kept.

Layout: ``<run>/checkpoints/step_00000120/`` with the shards and ``.metadata`` of torch.distributed.checkpoint,
``rank_<n>.safetensors``, ``meta.json`` and, written last, ``manifest.json``. While it is written the folder is called
``step_00000120.partial``; the last act is the rename. A folder is renamed to ``step_00000120.removed`` before its files
are removed, so a folder named ``step_00000120`` always has all its files, unless something damaged it.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cove_dist.checkpoints.manifest import read_checked
from cove_dist.errors import CheckpointError
from cove_dist.evaluation.declarations import higher_is_better
from data_pipeline.json_files import undefined_as_nan

META, PARTIAL = "meta.json", ".partial"
_REMOVED, _DAMAGED = ".removed", ".damaged"


@dataclass(frozen=True)
class CheckpointMeta:
    """Description of a checkpoint, readable without loading its tensors.

    Attributes:
        step: Optimizer steps done.
        world_size: Number of ranks that wrote it.
        model: What must agree for the weights to fit (`describe_model`).
        metrics: Metrics of the validation split at this step; empty within an epoch.
        progress: Training progress.
        data: Fingerprint of the prepared data.
        loader: Position within an epoch, for any number of ranks; None at the end of an epoch.
    """

    step: int
    world_size: int
    model: dict[str, Any]
    metrics: dict[str, float]
    progress: dict[str, Any]
    data: str
    loader: dict[str, Any] | None


def read_meta(path: Path) -> CheckpointMeta:
    """Read the description of a checkpoint.

    Raises:
        CheckpointError: The manifest or ``meta.json`` is missing or damaged; names the file.
    """
    try:
        meta = CheckpointMeta(**json.loads(read_checked(path, META)))
        meta = replace(meta, metrics=undefined_as_nan(meta.metrics))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path / META}: not the description of a checkpoint ({error}). Remove {path}") from error
    if path.name != step_name(meta.step):
        raise CheckpointError(f"{path}: is a checkpoint of step {meta.step}. Rename it to {step_name(meta.step)}")
    return meta


def step_name(step: int) -> str:
    """Return the name of the folder of a checkpoint."""
    return f"step_{step:08d}"


class CheckpointFolder:
    """The checkpoints of one run, as files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def steps(self) -> list[Path]:
        """Return all checkpoints by name, oldest first, damaged ones included."""
        return sorted(p for p in self.folder.glob("step_*") if re.fullmatch(r"step_\d+", p.name))

    def complete(self) -> list[Path]:
        """Return checkpoints with a valid manifest and description, oldest first. Other files are not checked."""
        return [path for path in self.steps() if _is_readable(path)]

    def newest(self) -> Path | None:
        """Return the checkpoint of the last step; None if there is none.

        Raises:
            CheckpointError: The checkpoint is damaged; an older one is not chosen silently.
        """
        path = next(reversed(self.steps()), None)
        if path is not None:
            read_meta(path)
        return path

    def best(self, metric: str) -> Path | None:
        """Return the checkpoint with the best validation metric, the earliest among equals; None if none has it.

        Raises:
            CheckpointError: A checkpoint is damaged, so the best is unknown.
        """
        return _best(self.steps(), metric)

    def prune(self, keep: int, metric: str) -> None:
        """Remove all but the newest ``keep`` and the best. Damaged ones are kept."""
        complete = self.complete()
        kept = {*complete[-keep:], _best(complete, metric)}
        for path in complete:
            if path not in kept:
                self.remove(path)

    def remove(self, path: Path) -> None:
        """Remove a checkpoint, atomically: an interrupted removal leaves nothing that looks complete."""
        _delete(_renamed(path, _REMOVED))

    def replace(self, path: Path, written: Path) -> None:
        """Give a written checkpoint its name, and remove an earlier one of this name after that."""
        old = _renamed(path, _REMOVED) if path.exists() else None
        written.rename(path)
        if old is not None:
            _delete(old)

    def remove_partial(self) -> None:
        """Remove checkpoints that a killed run left partly written or partly removed."""
        for path in [*self.folder.glob(f"step_*{PARTIAL}"), *self.folder.glob(f"step_*{_REMOVED}")]:
            _delete(path)

    def set_aside(self, step: int) -> list[Path]:
        """Rename damaged checkpoints, and those after the step at which the run continues, to ``step_<n>.damaged``."""
        complete = {path for path in self.complete() if path.name <= step_name(step)}
        return [_renamed(path, _DAMAGED) for path in self.steps() if path not in complete]


def _best(paths: list[Path], metric: str) -> Path | None:
    sign = 1 if higher_is_better(metric) else -1
    scored = [(sign * read_meta(path).metrics.get(metric, math.nan), path) for path in paths]
    scored = [(score, path) for score, path in scored if not math.isnan(score)]
    return max(scored, key=lambda pair: pair[0])[1] if scored else None


def _is_readable(path: Path) -> bool:
    try:
        read_meta(path)
    except CheckpointError:
        return False
    return True


def _renamed(path: Path, suffix: str) -> Path:
    target = path.with_name(path.name + suffix)
    if target.exists() or target.is_symlink():
        _delete(target)
    return path.rename(target)


def _delete(path: Path) -> None:
    """Remove a folder, or only the link or file that has its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
