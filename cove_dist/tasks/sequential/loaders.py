"""Loaders of sequential recommendation."""

from __future__ import annotations

import numpy as np

from cove_dist.distributed import DistributedContext
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.category_negatives import CategoryRenewal, CategorySource
from cove_dist.tasks.loaders import training_loader
from cove_dist.tasks.sequential.build import vocabulary_of
from cove_dist.tasks.sequential.config import SequentialRunConfig
from cove_dist.tasks.sequential.model import SequentialTaskModel
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import StreamLoader
from data_pipeline.streaming.vocabulary import VocabularySample


def sequential_training_loader(
    config: SequentialRunConfig, schema: Schema, context: DistributedContext
) -> StreamLoader:
    """Build the training loader; each batch of sequences comes with the vocabulary it is scored against."""
    vocabulary = vocabulary_of(config, schema, context.rank, context.world_size)
    return training_loader(config, schema, context, [vocabulary])


def build_category_renewal(
    config: SequentialRunConfig, schema: Schema, context: DistributedContext, model: TaskModel, loader: StreamLoader
) -> CategoryRenewal | None:
    """Build the run's category renewal; None if ``negatives.category_share`` is 0."""
    assert isinstance(model, SequentialTaskModel)
    negatives = model.objective.negatives
    if negatives is None:
        return None
    [sample] = [each for each in loader.stream.plan.settings.transforms if isinstance(each, VocabularySample)]

    def use(codes: np.ndarray) -> None:
        sample.set_categories(codes)
        negatives.set_codes(codes, context.device)

    return CategoryRenewal(CategorySource.of(config.negatives, config), model, use, schema, context.device)
