"""FiBiNET (Huang et al., RecSys 2019): fields weighted by importance, bilinear interactions of all pairs, an MLP.

Shapes: ``B`` batch, ``F`` id fields, ``d`` embedding dimension, ``D`` dense columns, ``P = F (F - 1) / 2`` pairs.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.layers.first_order import FirstOrder
from cove_dist.models.layers.mlp import MLP
from cove_dist.types import LayerSizes, PositiveInt, Probability

BilinearKind = Literal["all", "each", "interaction"]


class FiBiNET(CTRHead):
    """``logit = first order + MLP(p, q, dense)``: p from the embeddings, q from the embeddings re-weighted by SENET.

    p and q are `BilinearInteraction`s with separate matrices (section 3 of the FiBiNET paper). The network has one of
    each: the "3 feature interaction blocks" of the COVE paper do not correspond to any part of it. FiBiNET's only 3 is
    SENET's reduction ratio, which is how that setting is interpreted here. With two fields, a ratio of 2 or more has no
    effect, and neither has `bilinear`, as there is one pair.

    Args:
        num_fields: Number of id fields ``F``, at least 2.
        embedding_dim: Embedding dimension ``d``.
        num_dense: Number of dense columns ``D``. Dense columns enter the first-order term and the MLP.
        bilinear: Sharing of matrices: one for "all" pairs, for "each" left field, or for each pair ("interaction").
        reduction_ratio: Reduction ratio of SENET's bottleneck, which has ``max(1, F // reduction_ratio)`` units.
        hidden_units: Sizes of the MLP's hidden layers.
        dropout: Dropout after every hidden layer.
    """

    uses_first_order = True

    @staticmethod
    def unused(num_fields: int, num_dense: int) -> dict[str, str]:
        """Return the arguments that have no effect with these columns, and the reason for each."""
        return {} if num_fields > 2 else {"bilinear": "the data has two columns of ids, and so one pair of fields"}

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        *,
        bilinear: BilinearKind = "interaction",
        reduction_ratio: PositiveInt = 3,
        hidden_units: LayerSizes = (1000, 1000, 1000),
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        self.senet = SENET(num_fields, reduction_ratio)
        self.plain_pairs = BilinearInteraction(num_fields, embedding_dim, bilinear)
        self.weighted_pairs = BilinearInteraction(num_fields, embedding_dim, bilinear)
        num_pairs = num_fields * (num_fields - 1) // 2
        self.mlp = MLP(2 * num_pairs * embedding_dim + num_dense, hidden_units, dropout)
        self.deep_output = nn.Linear(self.mlp.out_dim, 1)
        self.first_order = FirstOrder(num_dense)

    def forward(self, fields: torch.Tensor, dense: torch.Tensor, first_order: torch.Tensor) -> torch.Tensor:
        """Map ``fields [B, F, d]``, ``dense [B, D]`` and ``first_order [B, F]`` (a weight per id) to logits ``[B]``."""
        plain, weighted = self.plain_pairs(fields), self.weighted_pairs(self.senet(fields))
        deep = self.deep_output(self.mlp(torch.cat([plain.flatten(1), weighted.flatten(1), dense], dim=1)))
        return self.first_order(first_order, dense) + deep.squeeze(1)


class SENET(nn.Module):
    """Multiplies each field by its importance ``relu(W2 relu(W1 z))``, where z are the means of all fields.

    W2 is initialized positive: a negative entry can zero its field permanently, and with two fields the whole branch.

    Args:
        num_fields: Number of id fields ``F``.
        reduction_ratio: Reduction ratio r; ``W1`` is ``[max(1, F // r), F]``.
    """

    def __init__(self, num_fields: int, reduction_ratio: int) -> None:
        super().__init__()
        bottleneck = max(1, num_fields // reduction_ratio)
        self.squeeze = nn.Linear(num_fields, bottleneck, bias=False)
        self.excite = nn.Linear(bottleneck, num_fields, bias=False)
        with torch.no_grad():
            self.excite.weight.abs_()

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """Re-weight fields ``[B, F, d]``."""
        importance = torch.relu(self.excite(torch.relu(self.squeeze(fields.mean(dim=2)))))
        return fields * importance.unsqueeze(2)


class BilinearInteraction(nn.Module):
    """``(v_i W) * v_j`` for all pairs of fields i < j.

    Args:
        num_fields: Number of id fields ``F``.
        dim: Width ``d``.
        kind: Pairs that share W. With "each" it is ``W_i``; the last field is never on the left and has no matrix.
    """

    transformed: torch.Tensor
    left: torch.Tensor
    right: torch.Tensor

    def __init__(self, num_fields: int, dim: int, kind: BilinearKind) -> None:
        super().__init__()
        left, right = torch.triu_indices(num_fields, num_fields, offset=1)
        by_pair = kind == "interaction"
        # Fields to multiply by a matrix.
        self.register_buffer("transformed", left if by_pair else torch.arange(num_fields - 1), persistent=False)
        self.register_buffer("left", torch.arange(len(left)) if by_pair else left, persistent=False)  # which of those
        self.register_buffer("right", right, persistent=False)
        self.weight = nn.Parameter(torch.empty(1 if kind == "all" else len(self.transformed), dim, dim))
        nn.init.uniform_(self.weight, -1 / math.sqrt(dim), 1 / math.sqrt(dim))  # as a linear layer

    def forward(self, fields: torch.Tensor) -> torch.Tensor:
        """Map fields ``[B, F, d]`` to ``[B, P, d]``, the pairs in the order (0, 1), (0, 2), …, (1, 2), …"""
        by_field = fields.transpose(0, 1)
        inputs = by_field.index_select(0, self.transformed)
        products = torch.bmm(inputs, self.weight.expand(len(inputs), -1, -1))
        return (products.index_select(0, self.left) * by_field.index_select(0, self.right)).transpose(0, 1)
