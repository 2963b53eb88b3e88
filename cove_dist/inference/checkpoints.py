"""The trained model of a finished run."""

from __future__ import annotations

from pathlib import Path

from torchrec.distributed import DistributedModelParallel

from cove_dist.checkpoints.io import load_weights
from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.training.build import build, describe_model
from data_pipeline.schema import Schema


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
