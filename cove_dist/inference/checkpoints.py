"""Shared parts of programs over a finished run: checkpoint and model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from torchrec.distributed import DistributedModelParallel

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.checkpoints.io import load_weights
from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.errors import CheckpointError
from cove_dist.runs import CHECKPOINTS
from cove_dist.training.build import build, describe_model
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


def load_trained(
    config: RunConfig, schema: Schema, context: DistributedContext, checkpoint: Path, batch_size: int
) -> DistributedModelParallel:
    """Build the sharded model of a run with the weights of a checkpoint. Collective.

    Args:
        config, schema, context: Configuration, data and distributed context of the run.
        checkpoint: Folder of the checkpoint.
        batch_size: Rows per rank, for the planner's cost estimates.

    Raises:
        CheckpointError: The checkpoint is of another model, or damaged.
    """
    model = build(config, schema, context, batch_size).model
    load_weights(checkpoint, model, describe_model(config, schema))
    return model


def find_checkpoint(folder: Path, config: RunConfig, which: Literal["best", "newest"]) -> Path:
    """Return a checkpoint of a run; without a validation split, the newest is used as the best.

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
            " give checkpoint=newest, or train with another trainer.early_stopping.metric"
        )
    return found
