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

_PAIRS, _PAIRS_ON_CUDA = 1 << 13, 1 << 20  # of user and item, scored at a time: those of a CPU stay in its cache


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
        return inner_products(self._shallow_weight * user_g, item_g) + self._deep(*self._first_layer(users, items))

    def score_all(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Score all pairs, with the first layer applied to users and items separately instead of per pair."""
        dim = users.shape[1] // 2
        at_once = max(1, (_PAIRS_ON_CUDA if users.is_cuda else _PAIRS) // max(1, len(items)))
        of_users, of_items = self._first_layer(users, items)
        deep = torch.cat([self._deep(part, of_items) for part in of_users.split(at_once)])
        return (self._shallow_weight * users[:, :dim]) @ items[:, :dim].T + deep

    def loss(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Return each row's mean binary cross-entropy (Eq. 7): label 1 for its positive, 0 for its negatives."""
        logits = torch.cat([positives.unsqueeze(1), negatives], dim=1)
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)

    @property
    def _shallow_weight(self) -> torch.Tensor:
        return self.output.weight[0, : -self.mlp.out_dim]

    def _first_layer(self, users: torch.Tensor, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the parts of the MLP's first layer before its activation: of the users with its bias, of the items.

        Applied to users and items separately it is half the work of a layer over their concatenation.
        """
        user_m, item_m = (rows[..., rows.shape[-1] // 2 :] for rows in (users, items))
        first = self.mlp[0]
        assert isinstance(first, nn.Linear)
        of_user, of_item = first.weight.chunk(2, dim=1)
        return F.linear(user_m, of_user, first.bias), F.linear(item_m, of_item)

    def _deep(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return the MLP's part of the logits, ``[B, n]``, from the first layer of users and items."""
        deep = users.unsqueeze(1) + items
        _, *rest = self.mlp
        for layer in rest:
            deep = layer(deep)
        return deep @ self.output.weight[0, -self.mlp.out_dim :] + self.output.bias
