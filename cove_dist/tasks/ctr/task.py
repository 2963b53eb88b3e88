"""The click-through rate task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import Groups
from cove_dist.evaluation.protocol import RankingProtocol
from cove_dist.losses.ctr import CTRLoss
from cove_dist.models.ctr.base import CTRHead
from cove_dist.tasks.ctr.config import RULES, CTRRunConfig
from cove_dist.tasks.task import Evaluator, Task
from data_pipeline.schema import Schema

if TYPE_CHECKING:
    from cove_dist.tasks.ctr.inference import CTRInference
    from cove_dist.tasks.ctr.model import CTRTaskModel
    from data_pipeline.streaming.loader import StreamLoader


class CTRTask(Task[CTRRunConfig]):
    """Click-through rate prediction: labelled examples, scored one by one."""

    name: ClassVar[str] = CTRHead.task
    title = "click-through rate models"
    config = CTRRunConfig
    saves_predictions = True
    loss = CTRLoss
    rules = RULES

    def check_data(self, config: CTRRunConfig, schema: Schema) -> None:
        if schema.implicit or schema.label is None:
            rows = "hold positives only" if schema.implicit else "are sequences"
            raise ConfigError(
                f"model = {config.model.name}: learns from labels, and the data {schema.name} {rows}."
                " Prepare them with label=COLUMN, or rating=COLUMN threshold=T; or train model=bprmf"
            )
        config.pooled(schema)
        super().check_data(config, schema)
        config.ctr.of(schema)
        hashed = [column.name for column in schema.categorical if column.buckets]
        if hashed and config.embeddings.id_dropout:
            raise ConfigError(
                f"embeddings.id_dropout = {config.embeddings.id_dropout}: unseen ids of {', '.join(hashed)} have hash"
                " buckets, which training reaches by itself; allowed: 0.0"
            )

    def build_model(self, config: CTRRunConfig, schema: Schema) -> CTRTaskModel:
        from cove_dist.tasks.ctr.model import build_ctr_model

        return build_ctr_model(config, schema)

    def build_training_loader(self, config: CTRRunConfig, schema: Schema, context: DistributedContext) -> StreamLoader:
        from cove_dist.tasks.loaders import training_loader
        from data_pipeline.streaming.transforms import DropIds

        share = config.embeddings.id_dropout
        schema = config.ctr.of(schema)
        return training_loader(config, schema, context, [DropIds(schema, share)] if share else [])

    def inference_class(self) -> type[CTRInference]:
        from cove_dist.tasks.ctr.inference import CTRInference

        return CTRInference

    def build_evaluator(
        self, config: CTRRunConfig, schema: Schema, split: str, context: DistributedContext, groups: Groups
    ) -> Evaluator:
        from cove_dist.tasks.ctr.evaluator import build_ctr_evaluator

        return build_ctr_evaluator(config, schema, split, context, groups)

    def build_saving_evaluator(
        self,
        config: CTRRunConfig,
        schema: Schema,
        split: str,
        context: DistributedContext,
        groups: Groups,
        folder: Path,
    ) -> Evaluator:
        from cove_dist.tasks.ctr.evaluator import build_ctr_evaluator

        return build_ctr_evaluator(config, schema, split, context, groups, folder)

    def signature(self, config: CTRRunConfig) -> dict[str, Any]:
        pooling, labels = dict(config.embeddings.pooling), list(config.ctr.weights)
        of_lists = {} if pooling == {"default": "mean"} else {"embeddings.pooling": pooling}
        return of_lists | ({"labels": labels} if labels else {})

    def metric_names(self, config: CTRRunConfig, split: str, schema: Schema | None = None) -> list[str]:
        names = config.evaluation.metric_names()
        return names + [f"{name}/{label}" for label in config.ctr.weights for name in names]

    def protocol(self, config: CTRRunConfig, schema: Schema, split: str) -> RankingProtocol:
        protocol = config.evaluation.protocol(schema)
        if not (labels := config.ctr.names):
            return protocol
        words = f"{protocol.words}, label{'s' if labels[1:] else ''} {', '.join(labels)}"
        return replace(protocol, words=words, label=labels[0], labels=labels if labels[1:] else None)
