"""Loaders shared by the tasks."""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import KeptBatches, StreamLoader
from data_pipeline.streaming.settings import StreamSettings
from data_pipeline.streaming.stream import ParquetStream
from data_pipeline.streaming.transforms import RowTransform


def training_loader(
    config: RunConfig, schema: Schema, context: DistributedContext, transforms: Sequence[RowTransform] = ()
) -> StreamLoader:
    """Build a training loader: reshuffled each epoch, the same number of steps on every rank."""
    settings = StreamSettings(
        config.trainer.rank_batch_size(context.world_size),
        context.rank,
        context.world_size,
        workers=config.trainer.workers,
        seed=config.seed,
        shuffle=True,
        shuffle_buffer=config.trainer.shuffle_buffer,
        pin_memory=context.device.type == "cuda",
        transforms=transforms,
    )
    return StreamLoader(ParquetStream(config.data.path, schema, "train", settings))


def evaluation_loader(config: RunConfig, schema: Schema, split: str, context: DistributedContext) -> KeptBatches:
    """Build an evaluation loader: file order, all rows of a user on one rank."""
    settings = StreamSettings(
        config.trainer.rank_evaluation_batch_size(context.world_size),
        context.rank,
        context.world_size,
        group_by_user=True,
        pin_memory=context.device.type == "cuda",
    )
    return KeptBatches(StreamLoader(ParquetStream(config.data.path, schema, split, settings)))
