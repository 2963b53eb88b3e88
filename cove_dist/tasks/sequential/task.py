"""Sequential recommendation as a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import Groups
from cove_dist.tasks.task import Evaluator, Task
from data_pipeline.schema import Schema

if TYPE_CHECKING:
    from cove_dist.tasks.sequential.model import SequentialRecommender
    from data_pipeline.streaming.loader import StreamLoader


class SequentialTask(Task):
    """Lists of items, continued from their input halves."""

    name = "sequential"
    title = "sequential models"
    section = "sequential"
    by_frequency = False

    def build_model(self, config: RunConfig, schema: Schema) -> SequentialRecommender:
        from cove_dist.tasks.sequential.build import build_list_model

        return build_list_model(config, schema)

    def build_training_loader(self, config: RunConfig, schema: Schema, runtime: DistributedContext) -> StreamLoader:
        from cove_dist.tasks.sequential.loaders import list_training_loader

        return list_training_loader(config, schema, runtime)

    def build_evaluator(
        self, config: RunConfig, schema: Schema, split: str, runtime: DistributedContext, groups: Groups
    ) -> Evaluator:
        from cove_dist.tasks.sequential.evaluator import build_list_evaluator

        return build_list_evaluator(config, schema, split, runtime)

    def signature(self, config: RunConfig) -> dict[str, Any]:
        from cove_dist.tasks.sequential.build import has_item_bias

        return {
            "codebook classification": config.quantizer.omega_c > 0,
            "bias of items": has_item_bias(config),
            "categories": (config.sequential.categories, config.sequential.two_stage),
        }

    def check_quantizer(self, config: RunConfig) -> None:
        quantizer, sequential = config.quantizer, config.sequential
        if quantizer.user_levels is not None:
            raise ConfigError(
                f"quantizer.user_levels = {list(quantizer.user_levels)}: lists have items alone to be quantized;"
                " allowed: null (quantizer=cove_items)"
            )
        if sequential.two_stage and sequential.categories is None and quantizer.item_levels is None:
            raise ConfigError(
                "sequential.two_stage = true: needs categories of items: set sequential.categories=COLUMN of ready-made"
                " ones, or quantizer=cove_items, whose coarsest codes then are the categories"
            )
        if quantizer.omega_c and quantizer.item_levels is None:
            raise ConfigError(
                f"quantizer.omega_c = {quantizer.omega_c}: without codes nothing is classified; set"
                " quantizer.item_levels, or omega_c=0"
            )
