"""The loaders of lists."""

from __future__ import annotations

from cove_dist.distributed import DistributedContext
from cove_dist.tasks.loaders import training_loader
from cove_dist.tasks.sequential.build import vocabulary_of
from cove_dist.tasks.sequential.config import SequentialRunConfig
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import StreamLoader


def list_training_loader(config: SequentialRunConfig, schema: Schema, runtime: DistributedContext) -> StreamLoader:
    """Lists, with the items that they are scored against beside each batch."""
    vocabulary = vocabulary_of(config, schema, runtime.rank, runtime.world_size)
    return training_loader(config, schema, runtime, [vocabulary])
