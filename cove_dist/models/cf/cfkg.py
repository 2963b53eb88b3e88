"""CFKG (Zhang et al., "Learning over Knowledge-Base Embeddings for Recommendation", 2018): translation in a graph.

Users, items and attributes are the entities; ``buy`` and each kind of attribute are the relations.
Shapes: ``B`` users or edges, ``n`` items per user, ``C`` shared items, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch
from torch import nn

from cove_dist.models.cf.base import AttributeRecommender, InnerProductRecommender
from cove_dist.types import NonNegativeFloat, PositiveFloat
from data_pipeline.schema import Entity


class CFKG(AttributeRecommender, InnerProductRecommender):
    """``score = -||user + buy - item||²``, and for edges ``-||item + kind - attribute||²``.

    The distance is squared Euclidean, one of the distances of TransE (Bordes et al., NIPS 2013). Negative tails must be
    farther by a margin. The quantizers apply to the looked-up users and items, also on edges (Figure 2b); attributes
    have no quantizer.

    Args:
        embedding_dim: Embedding dimension ``d``.
        num_kinds: Number of relations between items and attributes.
        margin: Margin by which a true tail must be nearer than a negative one.
        edge_weight: Weight of the loss over item-attribute edges, of which there is one per ``buy`` edge.
        regularization: L2 weight of the embeddings of users and items.
        init_std: Standard deviation of the initial relations, ``N(0, init_std²)``.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_kinds: int,
        *,
        margin: PositiveFloat = 1.0,
        edge_weight: NonNegativeFloat = 1.0,
        regularization: NonNegativeFloat = 0.0,
        init_std: PositiveFloat = 0.01,
    ) -> None:
        super().__init__()
        self.margin, self.edge_weight, self.regularization = margin, edge_weight, regularization
        self.buy = nn.Parameter(torch.randn(embedding_dim) * init_std)
        self.kinds = nn.Parameter(torch.randn(num_kinds, embedding_dim) * init_std)

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return -((users + self.buy).unsqueeze(1) - items).square().sum(dim=-1)

    def query(self, users: torch.Tensor) -> torch.Tensor:
        """Return ``[2 (user + buy) ; -1]``; with `key` and `offset` the score."""
        return torch.cat([2 * (users + self.buy), -torch.ones_like(users[:, :1])], dim=1)

    def key(self, items: torch.Tensor) -> torch.Tensor:
        """Return ``[item ; ||item||²]``."""
        return torch.cat([items, items.square().sum(dim=1, keepdim=True)], dim=1)

    def offset(self, users: torch.Tensor) -> torch.Tensor:
        """Return ``-||user + buy||²``."""
        return -(users + self.buy).square().sum(dim=1)

    def row_from_neighbors(self, entity: Entity, mean: torch.Tensor) -> torch.Tensor | None:
        """Return the mean after translation: ``item = user + buy``."""
        return mean + self.buy if entity == "item" else mean - self.buy

    def loss(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Return each row's mean margin loss of its positive, ``[B]``, and its negatives ``[B, n]``."""
        return torch.relu(self.margin - positives.unsqueeze(1) + negatives).mean(dim=1)

    def edge_loss(
        self, items: torch.Tensor, attributes: torch.Tensor, others: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """Return the margin loss of edges, times `edge_weight`."""
        heads = items + self.kinds[kinds]
        true, false = (-(heads - tails).square().sum(dim=1) for tails in (attributes, others))
        return self.edge_weight * self.loss(true, false.unsqueeze(1)).mean()
