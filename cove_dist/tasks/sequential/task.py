"""The sequential recommendation task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from cove_dist.config.late_settings import too_late
from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import Groups
from cove_dist.evaluation.protocol import RankingProtocol
from cove_dist.models.sequential.base import SequentialModel
from cove_dist.tasks.sequential.config import RULES, SequentialRunConfig
from cove_dist.tasks.task import Evaluator, Lookups, Task
from data_pipeline.schema import Schema

if TYPE_CHECKING:
    from cove_dist.tasks.base import EpochHook, TaskModel
    from cove_dist.tasks.sequential.inference import SequentialInference
    from cove_dist.tasks.sequential.model import SequentialTaskModel
    from cove_dist.tasks.sequential.popularity import SequentialPopularity
    from data_pipeline.streaming.loader import StreamLoader


class SequentialTask(Task[SequentialRunConfig]):
    """Sequential recommendation: sequences of items, continued from their input halves."""

    name: ClassVar[str] = SequentialModel.task
    title = "sequential models"
    config = SequentialRunConfig
    rules = RULES
    data_form = "sequences"
    by_frequency = False
    classifies_codes = True
    has_popularity_baseline = True

    def build_model(self, config: SequentialRunConfig, schema: Schema) -> SequentialTaskModel:
        from cove_dist.tasks.sequential.build import build_sequential_model

        return build_sequential_model(config, schema)

    def build_training_loader(
        self, config: SequentialRunConfig, schema: Schema, context: DistributedContext
    ) -> StreamLoader:
        from cove_dist.tasks.sequential.loaders import sequential_training_loader

        return sequential_training_loader(config, schema, context)

    def build_epoch_hook(
        self,
        config: SequentialRunConfig,
        schema: Schema,
        context: DistributedContext,
        model: TaskModel,
        loader: StreamLoader,
    ) -> EpochHook | None:
        from cove_dist.tasks.sequential.loaders import build_category_renewal

        return build_category_renewal(config, schema, context, model, loader)

    def lookups(self, config: SequentialRunConfig, schema: Schema, rows: int, world_size: int) -> Lookups:
        from cove_dist.tasks.sequential.build import lookups

        return lookups(config, schema, rows, world_size)

    def inference_class(self) -> type[SequentialInference]:
        from cove_dist.tasks.sequential.inference import SequentialInference

        return SequentialInference

    def build_evaluator(
        self, config: SequentialRunConfig, schema: Schema, split: str, context: DistributedContext, groups: Groups
    ) -> Evaluator:
        from cove_dist.tasks.sequential.evaluator import build_sequential_evaluator

        return build_sequential_evaluator(config, schema, split, context)

    def build_popularity_baseline(
        self, evaluation: Mapping[str, Any], data: str, schema: Schema
    ) -> SequentialPopularity:
        from cove_dist.tasks.sequential.popularity import SequentialPopularity

        return SequentialPopularity(evaluation, data, schema)

    def metric_names(self, config: SequentialRunConfig, split: str, schema: Schema | None = None) -> list[str]:
        return config.evaluation.metric_names(schema)

    def protocol(self, config: SequentialRunConfig, schema: Schema, split: str) -> RankingProtocol:
        return config.evaluation.protocol(schema).with_kept_items(schema.entity("item").kept)

    def signature(self, config: SequentialRunConfig) -> dict[str, Any]:
        return {
            "codebook classification": config.quantizer.omega_c > 0,
            "bias of items": config.has_item_bias,
            "categories": (config.sequential.categories, config.sequential.two_stage),
        }

    def late_settings(self, config: SequentialRunConfig, steps_per_epoch: int) -> list[str]:
        own = config.negatives.late_settings(config, steps_per_epoch)
        curriculum, steps = config.sequential.curriculum_steps, config.trainer.total_steps(steps_per_epoch)
        if curriculum > steps:
            key, consequence = "sequential.curriculum_steps", "the decoder is shown a part of the targets in every step"
            own.append(too_late(key, curriculum, steps, consequence, max(1, steps // 2)))
        return super().late_settings(config, steps_per_epoch) + own

    def data_bound(self, config: SequentialRunConfig) -> str | None:
        return None if config.sequential.categories is None else "sequential.categories"

    def check(self, config: SequentialRunConfig) -> None:
        super().check(config)
        parts = config.trainer.accumulate_steps
        if parts > 1 and config.sequential.curriculum_steps:
            raise ConfigError(
                f"trainer.accumulate_steps = {parts}: sequential.curriculum_steps counts batches; allowed: 1, or"
                " sequential.curriculum_steps=0"
            )
        quantizer, sequential, negatives = config.quantizer, config.sequential, config.negatives
        negatives.check(quantizer)
        if negatives.category_share and sequential.sampled * negatives.category_share < negatives.number(quantizer):
            raise ConfigError(
                f"sequential.sampled = {sequential.sampled}: too few for a share {negatives.category_share} of"
                f" {negatives.number(quantizer)} categories; allowed: more, or fewer categories"
            )
        if quantizer.user_levels is not None:
            raise ConfigError(
                f"quantizer.user_levels = {list(quantizer.user_levels)}: sequential models quantize items only;"
                " allowed: null (quantizer=cove_items)"
            )
        if sequential.two_stage and sequential.categories is None and quantizer.item_levels is None:
            raise ConfigError(
                "sequential.two_stage = true: needs categories of items: set sequential.categories=COLUMN of ready-made"
                " ones, or quantizer=cove_items, whose coarsest codes then are the categories"
            )
        if sequential.two_stage and sequential.categories is None and quantizer.cascade == "residual":
            raise ConfigError(
                "quantizer.cascade = residual: the last level's codes are no categories of items; with"
                " sequential.two_stage=true allowed: codes, or ready-made sequential.categories"
            )
        if quantizer.omega_c and quantizer.item_levels is None:
            raise ConfigError(
                f"quantizer.omega_c = {quantizer.omega_c}: without a quantizer there are no codes to classify; set"
                " quantizer.item_levels, or omega_c=0"
            )
