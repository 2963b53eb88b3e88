"""The Brier score, as an example of a metric."""

from __future__ import annotations

import torch

from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.declarations import Family, declares


@declares(Family("brier", "Brier score", higher_is_better=False))
class BrierScore(CheckedMetric):
    """Mean squared difference between probabilities and labels (Brier, 1950), summed in float64."""

    higher_is_better = False
    scores_name = "logits"
    total: torch.Tensor
    samples: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Add logits float ``[B]`` and labels ``[B]``, 0 or 1."""
        self.check_predictions(logits, labels)
        self.total += (logits.double().sigmoid() - labels.double()).square().sum()
        self.samples += len(logits)

    def compute(self) -> torch.Tensor:
        """Return a float64 scalar; nan when there are no samples."""
        self.raise_if_refused()
        return self.total / self.samples
