"""Codebook classification: predicting the codes of the true item from a hidden state (paper, section 4.6).

The paper tunes the weight ``omega_c`` of this loss without defining the loss; this is our definition.

Shapes: ``D`` size of the hidden state, ``H`` levels, ``v_i`` codes at level i, ``...`` any leading dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn


class CodeClassifier(nn.Module):
    """One linear head per level on the hidden state from which a sequential model predicts an item.

    Args:
        hidden_dim: Size D of the hidden state.
        levels: Numbers of codes of the item quantizer, ``v_1 > ... > v_H``.
    """

    def __init__(self, hidden_dim: int, levels: Sequence[int]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(nn.Linear(hidden_dim, size) for size in levels)

    def forward(self, hidden: torch.Tensor, codes: torch.Tensor, counts: torch.Tensor | None = None) -> torch.Tensor:
        """Compute the cross-entropy of the true codes, summed over levels and averaged over positions.

        Args:
            hidden: Hidden states, float ``[..., D]``.
            codes: Codes of the true items, int64 ``[..., H]``.
            counts: Weights of the positions, integer or bool ``[...]``. Positions of weight 0 are padding and have no
                effect, even if they hold NaN.

        Returns:
            A scalar; 0 if all weights are 0.

        Raises:
            ValueError: Shapes do not match.
        """
        expected = (*hidden.shape[:-1], len(self.heads))
        if codes.shape != expected or (counts is not None and counts.shape != hidden.shape[:-1]):
            counted = "" if counts is None else f" and counts {list(counts.shape)}"
            raise ValueError(f"codes {list(codes.shape)}{counted}: must be {list(expected)} and one per position")
        rows, targets = hidden.reshape(-1, hidden.shape[-1]), codes.reshape(-1, len(self.heads))
        weights = None if counts is None else counts.reshape(-1)
        if weights is not None:
            present = weights.nonzero().flatten()
            rows, targets, weights = (x.index_select(0, present) for x in (rows, targets, weights))
        by_level = [
            F.cross_entropy(head(rows), target, reduction="none")
            for head, target in zip(self.heads, targets.unbind(1), strict=True)
        ]
        losses = torch.stack(by_level).sum(dim=0)
        weights = torch.ones_like(losses) if weights is None else weights.to(losses.dtype)
        return losses.dot(weights) / weights.sum().clamp(min=1)
