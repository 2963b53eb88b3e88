"""The checkpoint of a run that a program over a finished run works on."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from cove_dist.config import RunConfig
from cove_dist.errors import CheckpointError
from cove_dist.runs import CHECKPOINTS
from cove_dist.training.checkpoint_files import CheckpointFolder
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


def find_checkpoint(folder: Path, config: RunConfig, which: Literal["best", "newest"]) -> Path:
    """Return a checkpoint of a run; of data without a validation split the newest stands for the best.

    Raises:
        CheckpointError: there is none, or none whose metric is defined.
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
            " give checkpoint=newest, or train with another trainer.early_stopping.metric"
        )
    return found
