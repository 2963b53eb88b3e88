"""NeuMF (He et al., WWW 2017): generalized matrix factorization fused with an MLP, each with separate embeddings.

Shapes: ``B`` users, ``n`` items per user, ``C`` shared items, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from cove_dist.models.cf.base import Recommender
from cove_dist.models.layers.inner_products import inner_products
from cove_dist.models.layers.mlp import MLP
from cove_dist.types import LayerSizes, NonNegativeFloat, Probability

_PAIRS = 1 << 16  # pairs of user and item scored at a time


class NeuMF(Recommender):
    """``logit = h · [user_g * item_g ; MLP([user_m ; item_m])]`` (Eq. 12 of the paper), trained with cross-entropy.

    A row of a table holds both embeddings of an id, ``[g ; m]``, with ``d`` numbers each. The quantizers apply to the
    looked-up row, so a code covers both (Figure 2b).

    Args:
        embedding_dim: Embedding dimension ``d``.
        hidden_units: Sizes of the MLP's hidden layers.
        dropout: Dropout after every hidden layer.
        regularization: L2 weight of the embeddings.
    """

    rows_per_id = 2

    def __init__(
        self,
        embedding_dim: int,
        *,
        hidden_units: LayerSizes = (64, 32, 16),
        dropout: Probability = 0.0,
        regularization: NonNegativeFloat = 0.0,
    ) -> None:
        super().__init__()
        self.regularization = regularization
        self.mlp = MLP(2 * embedding_dim, hidden_units, dropout)
        self.output = nn.Linear(embedding_dim + self.mlp.out_dim, 1)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return logits ``[B, n]`` of ``users [B, 2d]`` for ``items [B, n, 2d]``."""
        user_g, item_g = users[:, : users.shape[1] // 2], items[..., : users.shape[1] // 2]
        shallow, deep = self._shallow_weight * user_g, self._deep(users, items)
        return inner_products(shallow, item_g) + deep

    def score_all(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Score all pairs, with the first layer applied to users and items separately instead of per pair."""
        at_once = max(1, _PAIRS // max(1, len(items)))
        return torch.cat([self._score_slice(part, items) for part in users.split(at_once)])

    def loss(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Return each row's mean binary cross-entropy (Eq. 7): label 1 for its positive, 0 for its negatives."""
        logits = torch.cat([positives.unsqueeze(1), negatives], dim=1)
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)

    def _score_slice(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        dim = users.shape[1] // 2
        return (self._shallow_weight * users[:, :dim]) @ items[:, :dim].T + self._deep(users, items)

    @property
    def _shallow_weight(self) -> torch.Tensor:
        return self.output.weight[0, : -self.mlp.out_dim]

    def _deep(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return the MLP's part of the logits, ``[B, n]``, of items ``[B, n, 2d]`` or ``[n, 2d]``.

        The first layer is applied to users and items separately, half the work of a layer over their concatenation.
        """
        user_m, item_m = (rows[..., rows.shape[-1] // 2 :] for rows in (users, items))
        first, *rest = self.mlp
        assert isinstance(first, nn.Linear)
        of_user, of_item = first.weight.chunk(2, dim=1)
        deep = F.linear(user_m, of_user, first.bias).unsqueeze(1) + F.linear(item_m, of_item)
        for layer in rest:
            deep = layer(deep)
        return deep @ self.output.weight[0, -self.mlp.out_dim :] + self.output.bias
