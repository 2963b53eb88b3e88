"""Logistic regression, as an example of a head."""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.ctr.base import CTRHead
from cove_dist.types import Probability


class Logistic(CTRHead):
    """Score ``dense · v + sum of fields · w``.

    Args:
        num_fields, embedding_dim, num_dense: see `CTRHead`.
        dropout: probability with which an input is set to zero.
    """

    def __init__(self, num_fields: int, embedding_dim: int, num_dense: int, *, dropout: Probability = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(num_fields * embedding_dim + num_dense, 1)

    def forward(self, fields: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Map fields ``[B, F, d]`` and dense ``[B, D]`` to logits ``[B]``."""
        return self.output(self.dropout(torch.cat([fields.flatten(1), dense], dim=1))).squeeze(1)
