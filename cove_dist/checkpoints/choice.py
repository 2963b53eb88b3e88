"""The checkpoint of a finished run that a program uses."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.config import RunConfig
from cove_dist.errors import CheckpointError
from cove_dist.runs import CHECKPOINTS
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


def find_checkpoint(folder: Path, config: RunConfig, which: Literal["best", "newest"], key: str = "checkpoint") -> Path:
    """Return a checkpoint of a run; without a validation split, the newest is used as the best.

    Args:
        folder: Run folder.
        config: Configuration of the run.
        which: Which checkpoint.
        key: The setting that chooses it, for errors.

    Raises:
        CheckpointError: There is no checkpoint, or none whose metric is defined.
    """
    files = CheckpointFolder(folder / CHECKPOINTS)
    stopping, newest = config.trainer.early_stopping, files.newest()
    if newest is None:
        raise CheckpointError(f"{files.folder}: no complete checkpoint; train first")
    found = files.best(stopping.metric) if which == "best" else newest
    if found is None and not Schema.load(config.data.path).has_split("validation"):
        logger.info(
            "The data have no validation split to tell the best checkpoint by: taking the newest, %s", newest.name
        )
        return newest
    if found is None:
        raise CheckpointError(
            f"{files.folder}: {stopping.metric} was undefined whenever it was evaluated, so no checkpoint is the best;"
            f" give {key}=newest, or train with another trainer.early_stopping.metric"
        )
    return found
