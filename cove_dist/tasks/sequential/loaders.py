"""Loaders of sequential recommendation."""

from __future__ import annotations

from cove_dist.distributed import DistributedContext
from cove_dist.tasks.loaders import training_loader
from cove_dist.tasks.sequential.build import vocabulary_of
from cove_dist.tasks.sequential.config import SequentialRunConfig
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import StreamLoader


def sequential_training_loader(
    config: SequentialRunConfig, schema: Schema, context: DistributedContext
) -> StreamLoader:
    """Build the training loader; each batch of sequences comes with the vocabulary it is scored against."""
    vocabulary = vocabulary_of(config, schema, context.rank, context.world_size)
    return training_loader(config, schema, context, [vocabulary])
