"""Checks of scores and labels that would silently corrupt a metric."""

from __future__ import annotations

import torch
from torchmetrics import Metric

DIVERGED = (
    "the model has diverged. Train with a lower learning rate, or evaluate a checkpoint from before the divergence"
)


class CheckedMetric(Metric):
    """Base class of metrics of scores: non-finite scores raise an error before any value is returned.

    NaN compares false with everything, so without the check it would rank a positive first. On CPU a bad batch raises
    immediately. On a GPU, where that would synchronize the device at every batch, bad values are counted, and
    `raise_if_refused`, which every `compute` calls first, raises on every rank.
    """

    full_state_update = False
    scores_name = "scores"
    refused: torch.Tensor

    def __init__(self) -> None:
        super().__init__(compute_with_cache=False)
        # Counts of non-finite scores, all scores, invalid labels (neither 0 nor 1), all labels.
        self.add_state("refused", torch.zeros(4, dtype=torch.int64), dist_reduce_fx="sum")

    def check(self, scores: torch.Tensor) -> None:
        """Check a batch of scores of any shape. Scores that are masked by -inf are checked before they are masked.

        Raises:
            FloatingPointError: Scores are NaN or infinite (on a GPU: raised by `compute`).
        """
        bad = count_not_finite(scores)
        if scores.device.type == "cpu":
            self._refuse_scores(int(bad), scores.numel())
        else:
            self.refused[0] += bad
            self.refused[1] += scores.numel()

    def check_predictions(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Check logits and labels.

        Raises:
            ValueError: Shapes differ, or a label is neither 0 nor 1 (on a GPU: raised by `compute`).
            FloatingPointError: Logits are NaN or infinite (on a GPU: raised by `compute`).
        """
        if logits.dim() != 1 or logits.shape != labels.shape:
            raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)}: must both be [B]")
        bad = (labels != 0) & (labels != 1)
        if labels.device.type != "cpu":
            self.refused[2] += bad.sum()
            self.refused[3] += len(labels)
        elif bad.any():
            raise ValueError(
                f"{int(bad.sum())} of {len(labels)} labels are neither 0 nor 1, the first {labels[bad][0].item()}"
            )
        self.check(logits)

    def raise_if_refused(self) -> None:
        """Raise if any batch on any rank had bad values, as `check` and `check_predictions` do."""
        bad_scores, scores, bad_labels, labels = self.refused.tolist()
        if bad_labels:
            raise ValueError(f"{bad_labels} of {labels} labels are neither 0 nor 1")
        self._refuse_scores(bad_scores, scores)

    def _refuse_scores(self, bad: int, count: int) -> None:
        if bad:
            raise FloatingPointError(
                f"{bad} of {count} {self.scores_name} are not finite (NaN or infinity): {DIVERGED}"
            )


class FiniteScores(CheckedMetric):
    """Only the check, for scores that are ranked before a metric receives them."""

    def update(self, scores: torch.Tensor) -> None:
        """Check a batch of scores of any shape."""
        self.check(scores)

    def compute(self) -> None:
        """Raise FloatingPointError on every rank if any rank had non-finite scores."""
        self.raise_if_refused()


def count_not_finite(scores: torch.Tensor) -> torch.Tensor:
    """Count NaN and infinite scores: int64 scalar on their device."""
    # On CPU a sum costs a twentieth of `isfinite`; it is finite only if every score is finite.
    if scores.device.type == "cpu" and bool(scores.sum().isfinite()):
        return scores.new_zeros((), dtype=torch.int64)
    return (~scores.isfinite()).sum()
