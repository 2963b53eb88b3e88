"""Typed configuration of a run, one module per section: types and ranges are here, values in ``configs/``.

`composition` builds a configuration from ``key=value`` overrides. The sections of one task are in ``tasks/<task>/``.
"""

from __future__ import annotations

from cove_dist.config.base import settings
from cove_dist.config.embeddings import EmbeddingsConfig, OptimizerConfig, TableOptimizerConfig
from cove_dist.config.evaluation import EvaluationConfig
from cove_dist.config.quantizer import QuantizerConfig
from cove_dist.config.run import DataConfig, RunConfig
from cove_dist.config.trainer import CheckpointConfig, EarlyStoppingConfig, TrainerConfig
from cove_dist.config.warm_start import WarmStartConfig

__all__ = [
    "CheckpointConfig",
    "DataConfig",
    "EarlyStoppingConfig",
    "EmbeddingsConfig",
    "EvaluationConfig",
    "OptimizerConfig",
    "QuantizerConfig",
    "RunConfig",
    "TableOptimizerConfig",
    "TrainerConfig",
    "WarmStartConfig",
    "settings",
]
