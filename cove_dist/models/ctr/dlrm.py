"""DLRM (Naumov et al., 2019): bottom MLP for dense columns, dot products of all pairs of fields, top MLP.

Shapes: ``B`` batch, ``F`` id fields, ``d`` embedding dimension, ``D`` dense columns.
"""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.layers.mlp import MLP
from cove_dist.types import LayerSizes, Probability


class DLRM(CTRHead):
    """DLRM, in which the bottom MLP maps the dense columns to one more field.

    The top MLP reads that field and the dot products of all pairs. Without dense columns it reads all id fields
    instead; otherwise its only input for two ids would be a single number.

    Args:
        num_fields: Number of id fields ``F``.
        embedding_dim: Embedding dimension ``d``.
        num_dense: Number of dense columns ``D``.
        bottom_units: Hidden sizes of the bottom MLP, before its output of size ``d``.
        hidden_units: Hidden sizes of the top MLP.
        dropout: Dropout after every hidden layer of the top MLP.
    """

    pairs: torch.Tensor

    @staticmethod
    def unused(num_fields: int, num_dense: int) -> dict[str, str]:
        """Return the arguments that have no effect with these columns, and the reason for each."""
        return {} if num_dense else {"bottom_units": "the data has no dense columns"}

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        *,
        bottom_units: LayerSizes = (512, 256),
        hidden_units: LayerSizes = (1000, 1000, 1000),
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        self.bottom = MLP(num_dense, (*bottom_units, embedding_dim)) if num_dense else None
        num_vectors = num_fields + (1 if num_dense else 0)
        pairs = torch.triu_indices(num_vectors, num_vectors, offset=1)
        self.register_buffer("pairs", pairs, persistent=False)
        direct = embedding_dim if num_dense else num_fields * embedding_dim
        self.top = MLP(direct + pairs.shape[1], hidden_units, dropout)
        self.output = nn.Linear(self.top.out_dim, 1)

    def forward(self, fields: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Map ``fields [B, F, d]`` and ``dense [B, D]`` to logits ``[B]``."""
        if self.bottom is None:
            direct = fields.flatten(1)
        else:
            direct = self.bottom(dense)
            fields = torch.cat([direct.unsqueeze(1), fields], dim=1)
        products = torch.bmm(fields, fields.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.output(self.top(torch.cat([direct, products], dim=1))).squeeze(1)
