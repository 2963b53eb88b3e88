"""The Brier score, as an example of a metric."""

from __future__ import annotations

import torch

from cove_dist.evaluation.declarations import Family, declares
from cove_dist.evaluation.own import SampleMetric


@declares(Family("brier", "Brier score", higher_is_better=False))
class BrierScore(SampleMetric):
    """Mean squared difference between probabilities and labels (Brier, 1950)."""

    def values(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the squared difference of every row, ``[B]``."""
        return (logits.sigmoid() - labels).square()
