"""LightGCN (He et al., SIGIR 2020): embeddings propagated over the interaction graph, without weights.

Shapes: ``U`` users, ``I`` items, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch

from cove_dist.models.cf.base import GraphRecommender, InnerProductRecommender, Neighbors
from cove_dist.types import NonNegativeFloat, PositiveInt


class LightGCN(GraphRecommender, InnerProductRecommender):
    """``score = user · item`` with embeddings averaged over the propagation layers (Eq. 4, 5 and 11 of the paper).

    The quantizers apply before propagation: layer 0 consists of the fused vectors (Figure 2b).

    Args:
        embedding_dim: Embedding dimension ``d``.
        layers: Number of propagation layers.
        regularization: L2 weight of layer 0, before the quantizers.
    """

    has_parameters = False

    def __init__(self, embedding_dim: int, *, layers: PositiveInt = 3, regularization: NonNegativeFloat = 1e-4) -> None:
        super().__init__()
        self.layers, self.regularization = layers, regularization

    def propagate(
        self, users: torch.Tensor, items: torch.Tensor, to_users: Neighbors, to_items: Neighbors
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the mean over layers 0 to `layers`; see `GraphRecommender.propagate`."""
        return _MeanOfLayers.apply(users, items, to_users, to_items, self.layers)


class _MeanOfLayers(torch.autograd.Function):
    """Computes ``(e + A e + … + A^L e) / (L + 1)``. A is symmetric, so the backward pass is the same map."""

    @staticmethod
    def forward(ctx, users: torch.Tensor, items: torch.Tensor, to_users: Neighbors, to_items: Neighbors, layers: int):
        ctx.arguments = to_users, to_items, layers
        return _mean_of_layers(users, items, *ctx.arguments)

    @staticmethod
    def backward(ctx, users: torch.Tensor, items: torch.Tensor):
        return *_mean_of_layers(users.contiguous(), items.contiguous(), *ctx.arguments), None, None, None


def _mean_of_layers(
    users: torch.Tensor, items: torch.Tensor, to_users: Neighbors, to_items: Neighbors, layers: int
) -> tuple[torch.Tensor, torch.Tensor]:
    user_sum, item_sum = users, items
    for _ in range(layers):  # by Horner's rule: e + A (e + A (e + …))
        user_sum, item_sum = to_users(item_sum).add_(users), to_items(user_sum).add_(items)
    return user_sum.div_(layers + 1), item_sum.div_(layers + 1)
