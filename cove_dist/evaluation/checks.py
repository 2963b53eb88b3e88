"""What every metric asks of its input."""

from __future__ import annotations

import torch


def check_predictions(logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Refuse what would silently spoil a metric.

    Raises:
        ValueError: not two vectors of one length, or a label that is neither 0 nor 1.
        FloatingPointError: logits that are NaN or infinite.
    """
    if logits.dim() != 1 or logits.shape != labels.shape:
        raise ValueError(f"logits {list(logits.shape)} and labels {list(labels.shape)}: must both be [B]")
    wrong = labels[(labels != 0) & (labels != 1)]
    if len(wrong):
        raise ValueError(f"{len(wrong)} of {len(labels)} labels are neither 0 nor 1, the first {wrong[0].item()}")
    if not logits.isfinite().all():
        raise FloatingPointError(
            f"{int((~logits.isfinite()).sum())} of {len(logits)} logits are not finite: the model has diverged"
        )
