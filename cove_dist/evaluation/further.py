"""Metrics that a configuration may add by ``metric=NAME``; see `cove_dist.evaluation.own`."""

from __future__ import annotations

import torch

from cove_dist.evaluation.declarations import Family, declares
from cove_dist.evaluation.own import ListMetric, SampleMetric
from cove_dist.evaluation.positions import Positions


@declares(Family("brier", "Brier score", higher_is_better=False))
class Brier(SampleMetric):
    """Mean squared difference between probabilities and labels (Brier, 1950)."""

    def values(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (logits.sigmoid() - labels).square()


@declares(Family("precision", "precision", "hit_rate_at"))
class Precision(ListMetric):
    """Share of relevant items among the first k, in expectation over the orders of tied items."""

    def values(self, positions: Positions, positives: torch.Tensor, k: int) -> torch.Tensor:
        return positions.found(k) / k
