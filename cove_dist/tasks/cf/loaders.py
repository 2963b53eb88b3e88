"""Loaders of collaborative filtering."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.models.cf.base import AttributeRecommender, GraphRecommender, Recommender
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.category_negatives import CategoryRenewal, CategorySource
from cove_dist.tasks.cf.build import interactions
from cove_dist.tasks.cf.config import CFRunConfig
from cove_dist.tasks.frequency import row_counts
from cove_dist.tasks.loaders import evaluation_loader, training_loader
from data_pipeline.history import History
from data_pipeline.schema import ATTRIBUTES, Schema
from data_pipeline.streaming.loader import KeptBatches, StreamLoader
from data_pipeline.streaming.transforms import (
    DrawEdges,
    DrawNegatives,
    DropIds,
    RowBlocks,
    RowTransform,
    occurrences,
)


def cf_training_loader(config: CFRunConfig, schema: Schema, context: DistributedContext) -> StreamLoader:
    """Build the loader of positives with sampled negatives, and the model's further training inputs."""
    head_class = config.model.kind_of(Recommender)
    schema, settings, folder = interactions(schema), config.negatives, config.data.path
    history = History.load(folder, "train")
    transforms: list[RowTransform] = [
        DrawNegatives(
            schema,
            history,
            settings.count,
            settings.source,
            settings.power,
            category_share=settings.category_share,
            hardest_of=settings.hardest_of,
            hardest_share=settings.hardest_share,
        )
    ]
    if issubclass(head_class, AttributeRecommender):
        edges = History.load(folder, ATTRIBUTES)
        transforms.append(DrawEdges(schema.entity("item"), edges, sum(schema.attributes.values())))
    if issubclass(head_class, GraphRecommender):
        transforms.append(RowBlocks(schema, context.rank, context.world_size))
    if share := config.embeddings.id_dropout:
        transforms.append(DropIds(schema, share, tuple(transforms), settings.count * settings.hardest_of))
    return training_loader(config, schema, context, transforms)


def build_category_renewal(
    config: CFRunConfig, schema: Schema, context: DistributedContext, model: TaskModel, loader: StreamLoader
) -> CategoryRenewal | None:
    """Build the run's category renewal; None if ``negatives.category_share`` is 0."""
    settings = config.negatives
    if settings.category_share == 0:
        return None
    [draw] = [each for each in loader.stream.plan.settings.transforms if isinstance(each, DrawNegatives)]
    return CategoryRenewal(CategorySource.of(settings, config), model, draw.set_categories, schema, context.device)


def cf_row_counts(config: CFRunConfig, schema: Schema) -> dict[str, torch.Tensor]:
    """Count the interactions of every user and item, and the items of every attribute, by table row."""
    counts = row_counts(config.data.path, interactions(schema))
    total = sum(schema.attributes.values())
    if issubclass(config.model.kind_of(Recommender), AttributeRecommender):
        items_of = torch.from_numpy(occurrences(History.load(config.data.path, ATTRIBUTES), total))
        counts[ATTRIBUTES] = F.pad(items_of, (0, 1))  # the out-of-vocabulary row
    return counts


def candidate_loader(config: CFRunConfig, schema: Schema, split: str, context: DistributedContext) -> KeptBatches:
    """Build the loader of validation or test rows with their candidates.

    Raises:
        ConfigError: The data were prepared without candidates.
    """
    candidates = schema.candidates
    if candidates is None:
        raise ConfigError(
            f"evaluation.rank_{split}: {schema.name} was prepared without candidates; rank [full], or prepare it with"
            " candidates=99"
        )
    schema = interactions(schema)
    return evaluation_loader(config, replace(schema, categorical=(*schema.categorical, candidates)), split, context)
