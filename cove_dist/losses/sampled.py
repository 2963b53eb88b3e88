"""Softmax cross-entropy against a sample of the vocabulary, corrected for the sampling frequencies.

Shapes: ``P`` positions, ``n`` sampled items, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def sampled_cross_entropy(
    hidden: torch.Tensor,
    true_rows: torch.Tensor,
    targets: torch.Tensor,
    weights: torch.Tensor,
    sampled_rows: torch.Tensor,
    sampled: torch.Tensor,
    log_expected: torch.Tensor,
    excluded: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute ``sum_p weights[p] · -log softmax([hidden · true row, hidden · sampled rows - log_expected])[true]``.

    The sum over the sample estimates that over the vocabulary without bias (importance sampling: Bengio and Senécal,
    2008), so the loss tends to that of the full softmax as the sample grows. The true item is always
    included and needs no correction; if the sample also contains it, it is excluded there.

    Args:
        hidden: Hidden states, float ``[P, d]``.
        true_rows: Rows of the true items, float ``[P, d]``.
        targets: True items, int64 ``[P]``.
        weights: Weights of the positions, float ``[P]``, without gradients.
        sampled_rows: Rows of the sampled items, float ``[n, d]``; shared by all positions, drawn with replacement.
        sampled: Sampled items, int64 ``[n]``.
        log_expected: Log of the expected count of each in a sample, ``n · probability``, float ``[n]``.
        excluded: Sampled items that a position is not scored against, bool ``[P, n]``; None: against all.

    Returns:
        The loss, a float32 scalar.
    """
    true = (hidden * true_rows).sum(dim=1, keepdim=True)
    scores = hidden @ sampled_rows.T - log_expected
    left_out = targets[:, None] == sampled
    scores = scores.masked_fill(left_out if excluded is None else left_out | excluded, -torch.inf)
    logits = torch.cat([true, scores], dim=1).float()
    return F.cross_entropy(logits, torch.zeros_like(targets), reduction="none").dot(weights.float())
