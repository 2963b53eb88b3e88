"""The linear part of a CTR model."""

from __future__ import annotations

import torch
from torch import nn


class FirstOrder(nn.Module):
    """Sums the ids' scalar weights and the weighted dense columns, without a bias.

    Args:
        num_dense: Number of dense columns ``D``.
    """

    def __init__(self, num_dense: int) -> None:
        super().__init__()
        self.dense = nn.Linear(num_dense, 1, bias=False) if num_dense else None

    def forward(self, first_order: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Map ``first_order [B, F]``, the scalar weight of each id, and ``dense [B, D]`` to ``[B]``."""
        ids = first_order.sum(dim=1)
        return ids if self.dense is None else ids + self.dense(dense).squeeze(1)
