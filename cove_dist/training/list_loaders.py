"""The loaders of lists."""

from __future__ import annotations

from cove_dist.config import RunConfig
from cove_dist.tasks.lists.build import vocabulary_of
from cove_dist.training.distributed import Runtime
from cove_dist.training.loaders import training_loader
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import StreamLoader


def list_training_loader(config: RunConfig, schema: Schema, runtime: Runtime) -> StreamLoader:
    """Lists, with the items that they are scored against beside each batch."""
    vocabulary = vocabulary_of(config, schema, runtime.rank, runtime.world_size)
    return training_loader(config, schema, runtime, [vocabulary])
