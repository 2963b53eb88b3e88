"""Codebooks of a run: maintenance after every step, health metrics, and warnings with remedies."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torchrec.optim.keyed import CombinedOptimizer

from cove_dist.config import QuantizerConfig
from cove_dist.distributed import DistributedContext, sum_over_ranks, world
from cove_dist.quantization import (
    CascadedQuantizer,
    CodebookMaintenance,
    CodeUsage,
    MaintenanceSettings,
    Replicas,
    dead_share,
    perplexity,
)
from cove_dist.tasks.unseen import set_unseen_rows
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)

Quantizers = Mapping[str, CascadedQuantizer]


class Codebooks:
    """Maintains and monitors the codebooks during training.

    Args:
        quantizers: Quantizers by entity.
        config: Configuration of the quantizers.
        seed: Seed of random choices.
        context: Context of this rank.
        optimizer: Optimizer of the run.
        warm: Whether the codebooks are those of an earlier run, and do not start by k-means.
    """

    def __init__(
        self,
        quantizers: Quantizers,
        config: QuantizerConfig,
        seed: int,
        context: DistributedContext,
        optimizer: CombinedOptimizer,
        *,
        warm: bool = False,
    ) -> None:
        self._quantizers = quantizers
        self._config = config = replace(config, start="random") if warm else config
        self._warm = warm
        self._context = context
        settings = MaintenanceSettings(seed=seed, **config.maintenance())
        replicas = Replicas(context.rank, context.world_size, world().sum)
        self._maintenance = CodebookMaintenance(quantizers, settings, replicas, lambda p: optimizer.state.get(p, {}))
        self._epoch = CodeUsage(quantizers.values())
        self._low: set[str] = set()
        self._step = 0

    def after_step(self, step: int) -> dict[str, float]:
        """Maintain the codebooks after a step; return ``revived_<entity>_<level>`` for revived codes. Collective."""
        self._step = step
        return {f"revived_{level}": float(count) for level, count in self._maintenance.after_step(step).items()}

    def close_epoch(self) -> dict[str, float]:
        """Return the health metrics of the epoch and reset them. Collective."""
        counts = sum_over_ranks(self._epoch.counts().double(), self._context.device)
        metrics = health(self._quantizers, self._epoch, counts)
        self._epoch.reset()
        return metrics

    def set_unseen_rows(self, tables: nn.Module, schema: Schema) -> None:
        """Set the rows of unseen ids by the use of codes in this epoch; see `cove_dist.tasks.unseen`. Collective."""
        counts = sum_over_ranks(self._epoch.counts().double(), self._context.device)
        usage = dict(zip(self._quantizers, self._epoch.by_level(counts), strict=True))
        set_unseen_rows(tables, self._quantizers, usage, schema)

    def watch(self, metrics: Mapping[str, float]) -> None:
        """Warn once for each level whose perplexity falls below the threshold, until it has recovered."""
        if self._config.start == "kmeans" and self._step < self._config.kmeans_step:
            return  # these codes are about to be replaced
        for name, quantizer in self._quantizers.items():
            for level, size in enumerate(quantizer.levels, start=1):
                key = f"perplexity_{name}_{level}"
                low = key in metrics and metrics[key] - 1 < self._config.warn_perplexity * (size - 1)
                if low and key not in self._low:
                    logger.warning("%s", self._advice(name, level, size, metrics[key]))
                self._low = self._low | {key} if low else self._low - {key}

    def _advice(self, name: str, level: int, size: int, value: float) -> str:
        remedies = [f"fewer codes (quantizer.{name}_levels)", "a lower trainer.optimizer.learning_rate"]
        if self._config.start == "random" and not self._warm:
            remedies.insert(0, "quantizer.start=kmeans")
        if self._config.revive_every is None:
            remedies.insert(0, "quantizer.revive_every=50")
        return (
            f"{name} codebook, level {level}: perplexity {value:.1f} of {size} codes: it is collapsing."
            f" Try {', or '.join(remedies)}; quantizer.warn_perplexity sets the threshold of this warning"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this rank."""
        # "upkeep" is the key of saved checkpoints
        return {"upkeep": self._maintenance.state_dict(), "epoch": self._epoch.counts()}

    def load_state_dict(self, *states: Mapping[str, Any]) -> None:
        """Restore the states of any number of former ranks; see `CodebookMaintenance.load_state_dict`."""
        self._maintenance.load_state_dict(*(state["upkeep"] for state in states))
        self._epoch.set_counts(*(state["epoch"] for state in states))


def health(quantizers: Quantizers, usage: CodeUsage, counts: torch.Tensor) -> dict[str, float]:
    """Return ``perplexity_<entity>_<level>`` and ``dead_<entity>_<level>``, the share of codes never chosen.

    Args:
        quantizers: Quantizers by entity.
        usage: Code usage of these quantizers, which splits the counts by level.
        counts: Counts of codes ``[sum of v_i]``, summed over ranks.
    """
    metrics = {}
    for name, levels in zip(quantizers, usage.by_level(counts), strict=True):
        for level, chosen in enumerate(levels, start=1):
            metrics[f"perplexity_{name}_{level}"] = float(perplexity(chosen))
            metrics[f"dead_{name}_{level}"] = float(dead_share(chosen))
    return metrics
