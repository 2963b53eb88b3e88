"""Everything a run needs, typed, a module a section. The values are in ``configs/``; types and ranges are here."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import InstanceOf

from cove_dist.config.base import settings
from cove_dist.config.embeddings import EmbeddingsConfig, OptimizerConfig, TableOptimizerConfig
from cove_dist.config.evaluation import RANKING_PREFIX, EvaluationConfig, Ranking
from cove_dist.config.model_spec import ModelSpec
from cove_dist.config.quantizer import QuantizerConfig
from cove_dist.config.tasks import NegativesConfig, SequentialConfig
from cove_dist.config.trainer import CheckpointConfig, EarlyStoppingConfig, TrainerConfig
from cove_dist.errors import ConfigError
from cove_dist.evaluation.protocol import check_protocol
from cove_dist.types import NonNegativeInt, Text
from data_pipeline.schema import Schema

__all__ = [
    "RANKING_PREFIX",
    "CheckpointConfig",
    "DataConfig",
    "EarlyStoppingConfig",
    "EmbeddingsConfig",
    "EvaluationConfig",
    "NegativesConfig",
    "OptimizerConfig",
    "QuantizerConfig",
    "Ranking",
    "RunConfig",
    "SequentialConfig",
    "TableOptimizerConfig",
    "TrainerConfig",
    "settings",
]


@settings
class DataConfig:
    """Location of the prepared data. Other ``data.*`` keys are only used by ``cove prepare``."""

    name: Text
    path: Text


@settings
class RunConfig:
    """Settings of a run. Of ``negatives`` and ``sequential`` it holds at most the section of its task."""

    data: DataConfig
    model: InstanceOf[ModelSpec]
    embeddings: EmbeddingsConfig
    quantizer: QuantizerConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    seed: NonNegativeInt
    output: Text
    negatives: NegativesConfig | None = None
    sequential: SequentialConfig | None = None

    def plain(self) -> dict[str, Any]:
        """Return the settings as nested mappings of plain values, the model as its section."""
        return asdict(self) | {"model": self.model.section}

    def check_evaluation(self, task: str, schema: Schema | None = None) -> None:
        """Refuse to stop by a metric, or to rank by a protocol, that the task does not have, or the data once known.

        Raises:
            ConfigError: naming what is allowed.
        """
        where = f"the task {task}" if schema is None else f"the data {schema.name}"
        self.trainer.early_stopping.check(self.evaluation.metrics(task, schema=schema), where)
        if schema is None:
            check_protocol(task, self.evaluation.group_by, self.evaluation.exclude_seen)
            return
        self.evaluation.protocol(task, schema)
        if task == "cf" and schema.candidates is None:
            self._check_rankings(schema)

    def _check_rankings(self, schema: Schema) -> None:
        """Refuse to rank candidates that the data do not have, those of the test split too: training comes first."""
        lines = [
            f"evaluation.rank_{split} = {list(self.evaluation.rankings(split))}: {schema.name} was prepared without"
            " candidates; allowed: [full], or prepare it with candidates=99"
            for split in ("validation", "test")
            if schema.has_split(split) and "sampled" in self.evaluation.rankings(split)
        ]
        if lines:
            raise ConfigError("\n".join(lines))
