"""DCN, the Deep & Cross Network (Wang et al., ADKDD 2017): crosses of bounded degree, and an MLP.

Shapes: ``B`` batch, ``F`` id fields, ``d`` embedding dimension, ``D`` dense columns, ``n = F d + D``, ``L`` layers.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.layers.mlp import MLP
from cove_dist.types import LayerSizes, PositiveInt, Probability


class DCN(CTRHead):
    """``logit = w_cross · x_L + w_deep · h + b``: cross network and MLP, both on embeddings and dense columns.

    Section 2.4 of the paper has one linear layer on both concatenated outputs; here two layers are summed.

    Args:
        num_fields: Number of id fields ``F``.
        embedding_dim: Embedding dimension ``d``.
        num_dense: Number of dense columns ``D``.
        cross_layers: Number of cross layers ``L``.
        hidden_units: Sizes of the MLP's hidden layers.
        dropout: Dropout after every hidden layer.
    """

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        *,
        cross_layers: PositiveInt = 3,
        hidden_units: LayerSizes = (1000, 1000, 1000),
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        width = num_fields * embedding_dim + num_dense
        self.cross = CrossNetwork(width, cross_layers)
        self.mlp = MLP(width, hidden_units, dropout)
        self.cross_output = nn.Linear(width, 1, bias=False)
        self.deep_output = nn.Linear(self.mlp.out_dim, 1)

    def forward(self, fields: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Map ``fields [B, F, d]`` and ``dense [B, D]`` to logits ``[B]``."""
        inputs = torch.cat([fields.flatten(1), dense], dim=1)
        return (self.cross_output(self.cross(inputs)) + self.deep_output(self.mlp(inputs))).squeeze(1)


class CrossNetwork(nn.Module):
    """``x_{l+1} = x_0 (x_l · w_l) + b_l + x_l`` (Eq. 3 of the paper), L times.

    Every ``x_l`` is ``s_l x_0 + c_l`` with a scalar s_l per row and a vector c_l shared by all rows, so only s_l and
    ``x_0 · w_l`` (for all l at once) are computed per row, and the vectors in one pass at the end.

    Args:
        width: Size n of ``x_0``.
        num_layers: Number of layers L.
    """

    def __init__(self, width: int, num_layers: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_layers, width))
        self.bias = nn.Parameter(torch.zeros(num_layers, width))
        nn.init.uniform_(self.weight, -1 / math.sqrt(width), 1 / math.sqrt(width))  # as a linear layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``x_0 [B, n]`` to ``x_L [B, n]``."""
        projections = (x @ self.weight.T).unbind(dim=1)
        scale, shift = torch.ones_like(projections[0]), torch.zeros_like(self.bias[0])
        for projection, weight, bias in zip(projections, self.weight, self.bias, strict=True):
            scale = scale + scale * projection + shift @ weight
            shift = shift + bias
        return torch.addcmul(shift, scale.unsqueeze(1), x)
