"""The collaborative filtering task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import Groups
from cove_dist.evaluation.protocol import RankingProtocol
from cove_dist.losses.pairs import PairLoss
from cove_dist.models.cf.base import Recommender
from cove_dist.tasks.cf.config import RULES, CFRunConfig
from cove_dist.tasks.task import Evaluator, Lookups, Task
from data_pipeline.schema import Entity, Schema

if TYPE_CHECKING:
    import numpy as np
    import torch

    from cove_dist.tasks.base import EpochHook, Retriever, RetrieverSettings, TaskModel
    from cove_dist.tasks.cf.inference import CFInference
    from cove_dist.tasks.cf.model import CFTaskModel
    from cove_dist.tasks.new_rows import NewRows
    from data_pipeline.streaming.loader import StreamLoader


class CFTask(Task[CFRunConfig]):
    """Collaborative filtering: positives of implicit feedback, ranked among candidates or all items."""

    name: ClassVar[str] = Recommender.task
    title = "collaborative filtering"
    config = CFRunConfig
    rules = RULES
    data_form = "positives"
    recommends_on_ranks = True
    loss = PairLoss

    def check(self, config: CFRunConfig) -> None:
        """Check settings; category negatives by quantizer codes need an item quantizer with that level."""
        super().check(config)
        if config.embeddings.id_dropout and config.interactions.neighbor_pull:
            raise ConfigError(
                f"embeddings.id_dropout = {config.embeddings.id_dropout}: not with interactions.neighbor_pull, which"
                " needs the degree of every id; allowed: 0"
            )
        config.negatives.check(config.quantizer)

    def late_settings(self, config: CFRunConfig, steps_per_epoch: int) -> list[str]:
        own = config.negatives.late_settings(config, steps_per_epoch)
        return super().late_settings(config, steps_per_epoch) + own

    def weights(self, config: CFRunConfig) -> dict[str, float]:
        return {**super().weights(config), "interactions.neighbor_pull": config.interactions.neighbor_pull}

    def build_model(self, config: CFRunConfig, schema: Schema) -> CFTaskModel:
        from cove_dist.tasks.cf.build import build_cf_model

        return build_cf_model(config, schema)

    def build_training_loader(self, config: CFRunConfig, schema: Schema, context: DistributedContext) -> StreamLoader:
        from cove_dist.tasks.cf.loaders import cf_training_loader

        return cf_training_loader(config, schema, context)

    def build_epoch_hook(
        self, config: CFRunConfig, schema: Schema, context: DistributedContext, model: TaskModel, loader: StreamLoader
    ) -> EpochHook | None:
        from cove_dist.tasks.cf.loaders import build_category_renewal

        return build_category_renewal(config, schema, context, model, loader)

    def row_counts(self, config: CFRunConfig, schema: Schema) -> dict[str, torch.Tensor]:
        from cove_dist.tasks.cf.loaders import cf_row_counts

        return cf_row_counts(config, schema)

    def lookups(self, config: CFRunConfig, schema: Schema, rows: int, world_size: int) -> Lookups:
        from cove_dist.tasks.cf.build import lookups

        return lookups(config, schema, rows, world_size)

    def unplannable(self, config: CFRunConfig) -> str | None:
        from cove_dist.models.cf.base import GraphRecommender

        if not issubclass(config.model.kind, GraphRecommender):
            return None
        return "propagates over the graph of all interactions, whose cost follows from its edges"

    def build_new_rows(
        self,
        config: CFRunConfig,
        schema: Schema,
        context: DistributedContext,
        model: TaskModel,
        trained: Mapping[Entity, np.ndarray],
    ) -> NewRows:
        from cove_dist.tasks.cf.fold_in import fold_in_obstacle
        from cove_dist.tasks.cf.model import CFTaskModel
        from cove_dist.tasks.cf.new_rows import CFNewRows

        assert isinstance(model, CFTaskModel)
        start, obstacle = config.warm_start.new_rows, fold_in_obstacle(model.objective)
        if start == "fold_in" and obstacle is not None:
            raise ConfigError(
                f"warm_start.new_rows = fold_in: not with {config.model.name}: {obstacle}; allowed: random, zero, mean,"
                " code"
            )
        if start == "code" and not config.quantizer.levels():
            raise ConfigError(
                "warm_start.new_rows = code: nothing is quantized; allowed: random, zero, mean, fold_in, or a run with"
                " a quantizer"
            )
        return CFNewRows(config, schema, model, trained, context.device)

    def inference_class(self) -> type[CFInference]:
        from cove_dist.tasks.cf.inference import CFInference

        return CFInference

    def build_retriever(
        self, schema: Schema, model: TaskModel, context: DistributedContext, settings: RetrieverSettings
    ) -> Retriever:
        from cove_dist.tasks.cf.model import CFTaskModel
        from cove_dist.tasks.cf.retrieval import build_retriever

        assert isinstance(model, CFTaskModel)
        return build_retriever(model, schema, context, settings)

    def build_evaluator(
        self, config: CFRunConfig, schema: Schema, split: str, context: DistributedContext, groups: Groups
    ) -> Evaluator:
        from cove_dist.tasks.cf.evaluator import build_cf_evaluator

        return build_cf_evaluator(config, schema, split, context, groups)

    def metric_names(self, config: CFRunConfig, split: str, schema: Schema | None = None) -> list[str]:
        return config.evaluation.metric_names(split)

    def protocol(self, config: CFRunConfig, schema: Schema, split: str) -> RankingProtocol:
        return config.evaluation.protocol(split).with_kept_items(schema.entity("item").kept)

    def check_data(self, config: CFRunConfig, schema: Schema) -> None:
        from cove_dist.tasks.cf.build import check_data

        check_data(config.model.kind_of(Recommender), schema)
        super().check_data(config, schema)
        config.evaluation.check_candidates(schema, config.trainer.early_stopping.metric)
        items, candidates = schema.entity("item").num_seen, config.negatives.hardest_of
        if candidates > items:
            raise ConfigError(
                f"negatives.hardest_of = {candidates}: the data {schema.name} have {items} items; 2 to 10 are usual"
            )
