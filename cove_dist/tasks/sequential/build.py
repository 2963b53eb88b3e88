"""Builds sequential models from a configuration and a schema."""

from __future__ import annotations

import logging

import numpy as np
import torch

from cove_dist.distributed import world
from cove_dist.embeddings.tables import build_unpooled
from cove_dist.errors import ConfigError
from cove_dist.models.layers.two_stage import TwoStageClassifier
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.quantization import CodeClassifier
from cove_dist.tasks.quantizers import build_quantizers
from cove_dist.tasks.sequential.categories import ItemCategories, read_categories
from cove_dist.tasks.sequential.category_negatives import CategoryNegatives
from cove_dist.tasks.sequential.config import SequentialRunConfig
from cove_dist.tasks.sequential.model import ObjectiveSettings, SequentialObjective, SequentialTaskModel
from cove_dist.tasks.task import Lookups
from data_pipeline.schema import INPUT, OWNER, TARGET, Categorical, Schema
from data_pipeline.streaming.transforms import RowTransform, list_column
from data_pipeline.streaming.vocabulary import (
    VOCABULARY,
    CategorySplit,
    VocabularyBlock,
    VocabularySample,
    item_counts,
    sampling_probabilities,
)

logger = logging.getLogger(__name__)


def build_sequential_model(config: SequentialRunConfig, schema: Schema) -> SequentialTaskModel:
    """Build the model: tables on the meta device, other parameters initialized from torch's global generator.

    Raises:
        ConfigError: The model's arguments do not fit its signature, or the data have no sequences.
    """
    halves = halves_of(schema)
    lengths = (half.max_length for half in halves)
    model = config.model.build(SequentialModel, config.embeddings.dim, *lengths)
    owners = [column for column in schema.categorical if column.name == OWNER]
    if model.reads_owner and not owners:
        logger.warning(
            "%s: dataset '%s' has no owner column; training without owner embeddings", config.model.name, schema.name
        )
    owners = owners if model.reads_owner else []
    tables = build_unpooled([*halves, list_column(VOCABULARY, halves[0]), *owners], config.embeddings.dim)
    quantizer, classifier = build_quantizers(config).get("item"), None
    if quantizer is not None and config.quantizer.omega_c:
        classifier = CodeClassifier(config.embeddings.dim, quantizer.levels)
    log_expected, sequential = None, config.sequential
    if sequential.softmax == "sampled":
        log_expected = torch.from_numpy(sequential.sampled * probabilities(config, schema)).log().float()
    categories, two_stage = build_categories(config, schema)
    objective = SequentialObjective(
        model,
        quantizer,
        classifier,
        objective_settings(config),
        item=halves[0],
        uses_owner=bool(owners),
        log_expected=log_expected,
        categories=categories,
        two_stage=two_stage,
        negatives=None if (split := category_split(config)) is None else CategoryNegatives(split, sequential.sampled),
    )
    return SequentialTaskModel(tables, objective)


def build_categories(
    config: SequentialRunConfig, schema: Schema
) -> tuple[ItemCategories | None, TwoStageClassifier | None]:
    """Build ready-made categories, and the classifier of these or of the coarsest codes; None if not configured."""
    dim, categories = config.embeddings.dim, None
    if config.sequential.categories is not None:
        categories = ItemCategories(*read_categories(config.data.path, schema, config.sequential.categories), dim)
    if not config.sequential.two_stage:
        return categories, None
    count = config.quantizer.levels()["item"][-1] if categories is None else categories.count
    return categories, TwoStageClassifier(dim, count)


def objective_settings(config: SequentialRunConfig) -> ObjectiveSettings:
    """Return the settings of the objective."""
    return ObjectiveSettings(
        softmax=config.sequential.softmax,
        fuse_output=config.sequential.fuse_output,
        mask_share=config.sequential.mask_share,
        mask_last=config.sequential.mask_last,
        curriculum_steps=config.sequential.curriculum_steps,
        omega_q=config.quantizer.omega_q,
        omega_c=config.quantizer.omega_c,
        item_bias=config.has_item_bias,
        precision=getattr(torch, config.trainer.precision),
    )


def halves_of(schema: Schema) -> tuple[Categorical, Categorical]:
    """Return the columns of input and target halves.

    Raises:
        ConfigError: The data have no sequences.
    """
    halves = {column.name: column for column in schema.categorical if column.name in (INPUT, TARGET)}
    if len(halves) < 2 or not all(column.sequence and column.max_length for column in halves.values()):
        raise ConfigError(
            f"data = {schema.name}: has no sequences; prepare it with sequences=LENGTH, as in sequences=50, choose"
            " playlists (aotm, zhihu, spotify, goodreads), or use a model of another task"
        )
    return halves[INPUT], halves[TARGET]


def vocabulary_of(config: SequentialRunConfig, schema: Schema, rank: int, world_size: int) -> RowTransform:
    """Build the transform that adds the vocabulary to every batch of this rank."""
    item = halves_of(schema)[0]
    if config.sequential.softmax == "sampled":
        split = category_split(config)
        return VocabularySample(item, config.sequential.sampled, probabilities(config, schema), split)
    if config.sequential.softmax == "full":
        return VocabularyBlock(item)
    return VocabularyBlock(item, rank, world_size)


def category_split(config: SequentialRunConfig) -> CategorySplit | None:
    """Return how a sample is divided for category negatives; None without them."""
    negatives, count = config.negatives, config.sequential.sampled
    if negatives.category_share == 0:
        return None
    return CategorySplit.by_share(count, negatives.category_share, negatives.number(config.quantizer))


def probabilities(config: SequentialRunConfig, schema: Schema) -> np.ndarray:
    """Return the sampling probabilities of the items seen in training: float64 ``[num_seen]``. Collective.

    Each rank reads its share of the training sequences.
    """
    ranks = world()
    counts = ranks.sum(torch.from_numpy(item_counts(config.data.path, schema, ranks.rank, ranks.size)))
    return sampling_probabilities(counts.numpy(), config.sequential.sampled_power)


def lookups(config: SequentialRunConfig, schema: Schema, rows: int, world_size: int) -> Lookups:
    """Return the ids that a training step looks up; see `Task.lookups`."""
    item, softmax = halves_of(schema)[0], config.sequential.softmax
    block = -(-item.num_rows // world_size)
    vocabulary = {"sampled": config.sequential.sampled, "full": item.num_seen}.get(softmax, block)
    per_row = {column.name: max(1, column.max_length) for column in schema.categorical}
    return Lookups(per_row, {VOCABULARY: vocabulary}, rows * (world_size if softmax == "vocabulary_parallel" else 1))
