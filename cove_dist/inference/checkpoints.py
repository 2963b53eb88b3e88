"""What programs over a finished run have in common: its checkpoint, its model, and the folder that they write."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from torchrec.distributed import DistributedModelParallel

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.errors import CheckpointError, ConfigError
from cove_dist.runs import CHECKPOINTS
from cove_dist.training.build import build, describe_model
from cove_dist.training.checkpoint import load_model
from cove_dist.training.checkpoint_files import CheckpointFolder
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


def output_folder(default: Path, configured: str | None, marker: str, description: str) -> Path:
    """Return the folder that a program writes, which it may replace if it wrote it.

    Args:
        default: used without a configured one.
        configured: the setting ``output``.
        marker: a file that only this program writes.
        description: of what the program writes, for the message.

    Raises:
        ConfigError: the folder exists and holds something else.
    """
    folder = default if configured is None else Path(configured)
    if folder.exists() and not (folder / marker).is_file():
        raise ConfigError(f"output = {folder}: exists and holds no {description}; remove it, or give another output")
    return folder


def load_trained(
    config: RunConfig, schema: Schema, runtime: DistributedContext, checkpoint: Path, batch_size: int
) -> DistributedModelParallel:
    """Build the model of a run, sharded, with the weights of a checkpoint. Collective.

    Args:
        config, schema, runtime: of the run.
        checkpoint: its folder.
        batch_size: rows per rank, by which the planner weighs placements.

    Raises:
        CheckpointError: the checkpoint is of another model, or damaged.
    """
    trainable = build(config, schema, runtime, batch_size)
    load_model(checkpoint, trainable, describe_model(config, schema))
    return trainable.model


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
