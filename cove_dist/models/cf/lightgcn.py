"""LightGCN (He et al., SIGIR 2020): embeddings propagated over the graph of interactions, without weights.

Shapes: ``U`` users, ``I`` items, ``d`` embedding dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from cove_dist.models.cf.base import InnerProductRecommender
from cove_dist.types import NonNegativeFloat, PositiveInt


class LightGCN(InnerProductRecommender):
    """``score = user · item``, of embeddings averaged over the layers of propagation (Eq. 4, 5 and 11 of its paper).

    The quantizers enter before propagation: layer 0 is the fused vectors (Figure 2b).

    Args:
        embedding_dim: ``d``.
        layers: of propagation.
        regularization: of layer 0, before the quantizers.
    """

    propagates = True

    def __init__(self, embedding_dim: int, *, layers: PositiveInt = 3, regularization: NonNegativeFloat = 1e-4) -> None:
        super().__init__()
        self.layers, self.regularization = layers, regularization

    def propagate(
        self,
        users: torch.Tensor,
        items: torch.Tensor,
        to_users: Callable[[torch.Tensor], torch.Tensor],
        to_items: Callable[[torch.Tensor], torch.Tensor],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Final embeddings ``[U, d]`` and ``[I, d]``: the mean over layers 0 to `layers`.

        Args:
            users, items: layer 0, ``[U, d]`` and ``[I, d]``; or the parts of them that a process holds.
            to_users: ``[I, d] -> [U, d]``: the sum over neighbours, each by ``1 / sqrt(its degree * the user's)``.
            to_items: ``[U, d] -> [I, d]``: likewise.
        """
        user_sum, item_sum = users, items
        for _ in range(self.layers):
            users, items = to_users(items), to_items(users)
            user_sum, item_sum = user_sum + users, item_sum + items
        return user_sum / (self.layers + 1), item_sum / (self.layers + 1)
