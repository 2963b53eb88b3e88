"""Softmax cross-entropy against a sample of the vocabulary, corrected for how often it draws each item.

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
) -> torch.Tensor:
    """``sum_p weights[p] · -log softmax([hidden · true row, hidden · sampled rows - log_expected])[true]``.

    The sum over the sample estimates that over the vocabulary without bias (importance sampling: Bengio and Senécal,
    2008), so the loss tends to that of the full softmax as the sample grows. The true item is always there and needs no
    correction; where the sample holds it too it is left out.

    Args:
        hidden: float ``[P, d]``.
        true_rows: float ``[P, d]``, of the true items.
        targets: int64 ``[P]``, the true items.
        weights: float ``[P]``, without a gradient.
        sampled_rows: float ``[n, d]``; the same items for all positions, drawn with replacement.
        sampled: int64 ``[n]``, these items.
        log_expected: float ``[n]``: of each the log of how often a sample holds it on average, ``n · probability``.

    Returns:
        Scalar float32.
    """
    true = (hidden * true_rows).sum(dim=1, keepdim=True)
    scores = hidden @ sampled_rows.T - log_expected
    scores = scores.masked_fill(targets[:, None] == sampled, -torch.inf)
    logits = torch.cat([true, scores], dim=1).float()
    return F.cross_entropy(logits, torch.zeros_like(targets), reduction="none").dot(weights.float())
