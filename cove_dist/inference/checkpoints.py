"""The trained model of a finished run."""

from __future__ import annotations

from dataclasses import replace
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
    """Build the sharded model of a run with the weights of a checkpoint, on any device. Collective.

    Args:
        config, schema, context: Configuration, data and distributed context of the run.
        checkpoint: Folder of the checkpoint.
        batch_size: Rows per rank, for the planner's cost estimates.

    Raises:
        CheckpointError: The checkpoint is of another model, or damaged.
    """
    model = build(read_only(config, context.device.type), schema, context, batch_size).model
    load_weights(checkpoint, model, describe_model(config, schema))
    return model


def read_only(config: RunConfig, device_type: str) -> RunConfig:
    """Return the configuration without what only training does, which another device may not have or allow."""
    trainer = replace(config.trainer, gradient_clip_norm=None, accumulate_steps=1)
    embeddings, quantizer = config.embeddings.read_only(device_type), config.quantizer.read_only()
    return replace(config, embeddings=embeddings, quantizer=quantizer, trainer=trainer)
