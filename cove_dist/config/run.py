"""The configuration of a training run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import InstanceOf

from cove_dist.config.base import settings
from cove_dist.config.embeddings import EmbeddingsConfig
from cove_dist.config.evaluation import EvaluationConfig
from cove_dist.config.model_spec import ModelSpec
from cove_dist.config.quantizer import QuantizerConfig
from cove_dist.config.trainer import TrainerConfig
from cove_dist.config.warm_start import WarmStartConfig
from cove_dist.types import Folder, Seed, Text


@settings
class DataConfig:
    """Location of the prepared data. Other ``data.*`` keys are only used by ``cove prepare``."""

    name: Text
    path: Text


@settings
class RunConfig:
    """The settings that runs of every task have. Each task derives its own class, with its sections, from this one."""

    data: DataConfig
    model: InstanceOf[ModelSpec]
    embeddings: EmbeddingsConfig
    quantizer: QuantizerConfig
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    loss: dict[str, Any] | None
    seed: Seed
    output: Folder
    warm_start: WarmStartConfig

    def plain(self) -> dict[str, Any]:
        """Return the settings as nested mappings of plain values, the model as its section."""
        return asdict(self) | {"model": self.model.section}
