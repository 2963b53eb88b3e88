"""DeepFM (Guo et al., IJCAI 2017): a factorization machine and an MLP over the same field embeddings.

Shapes: ``B`` batch, ``F`` id fields, ``d`` embedding dimension, ``D`` dense columns.
"""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.ctr.base import CTRHead
from cove_dist.models.layers.first_order import FirstOrder
from cove_dist.models.layers.mlp import MLP
from cove_dist.types import LayerSizes, Probability


class DeepFM(CTRHead):
    """``logit = first order + pairwise interactions + MLP`` (Eq. 1, 2 and 4 of the DeepFM paper).

    Args:
        num_fields: Number of id fields ``F``.
        embedding_dim: Embedding dimension ``d``.
        num_dense: Number of dense columns ``D``. Dense columns enter the first-order term and the MLP.
        hidden_units: Sizes of the MLP's hidden layers.
        dropout: Dropout after every hidden layer.
    """

    uses_first_order = True

    def __init__(
        self,
        num_fields: int,
        embedding_dim: int,
        num_dense: int,
        *,
        hidden_units: LayerSizes = (1000, 1000, 1000),
        dropout: Probability = 0.1,
    ) -> None:
        super().__init__()
        self.mlp = MLP(num_fields * embedding_dim + num_dense, hidden_units, dropout)
        self.deep_output = nn.Linear(self.mlp.out_dim, 1)
        self.first_order = FirstOrder(num_dense)

    def forward(self, fields: torch.Tensor, dense: torch.Tensor, first_order: torch.Tensor) -> torch.Tensor:
        """Score a batch.

        Args:
            fields: Field embeddings ``[B, F, d]``.
            dense: Standardized dense columns ``[B, D]``.
            first_order: Scalar weight of each id ``[B, F]``.

        Returns:
            Logits ``[B]``.
        """
        deep = self.deep_output(self.mlp(torch.cat([fields.flatten(1), dense], dim=1))).squeeze(1)
        return self.first_order(first_order, dense) + pairwise_interactions(fields) + deep


def pairwise_interactions(fields: torch.Tensor) -> torch.Tensor:
    """Sum the dot products of all pairs of fields, in time linear in F (Rendle 2010, Lemma 3.1).

    ``[B, F, d] -> [B]``.
    """
    return 0.5 * (fields.sum(dim=1).square() - fields.square().sum(dim=1)).sum(dim=1)
