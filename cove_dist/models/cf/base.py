"""Base classes of collaborative filtering models.

Shapes: ``B`` users, ``n`` items per user, ``C`` items shared by all users, ``U`` users and ``I`` items in total, ``d``
width of a table's rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F

from cove_dist.models.base import Model
from cove_dist.models.layers.inner_products import inner_products, inner_products_with_rows
from data_pipeline.schema import Entity

Neighbors = Callable[[torch.Tensor], torch.Tensor]
ScoreRows = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def bpr_loss(positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
    """Return the mean of ``-ln sigmoid(positive - negative)`` over every row's negatives, ``[B]``.

    Source: BPR-Opt (Rendle et al., UAI 2009).

    Args:
        positives: Scores of positives ``[B]``.
        negatives: Scores of negatives ``[B, n]``.
    """
    return F.softplus(negatives - positives.unsqueeze(1)).mean(dim=1)


class Recommender(Model, ABC):
    """Scores items for users. The task calls it on fused vectors (Eq. 4) if an entity has a quantizer.

    Attributes:
        rows_per_id: Width of a table's rows in units of ``embeddings.dim``.
        regularization: Weight of half the squared norm of looked-up embeddings, before quantization.
    """

    task = "cf"
    uses_precision = False
    rows_per_id: ClassVar[int] = 1
    regularization: float = 0.0

    @abstractmethod
    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return scores ``[B, n]`` of ``users [B, d]`` for their ``items [B, n, d]``."""

    @abstractmethod
    def score_all(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Return scores ``[B, C]`` of ``users [B, d]`` for shared ``items [C, d]``."""

    def scorer(self, items: torch.Tensor) -> ScoreRows:
        """Return the function that scores some items for each user, up to a constant per user, without gradients.

        Args:
            items: Vectors of all items ``[R, d]``.

        Returns:
            Function of ``users [B, d]`` and rows of ``items``, int64 ``[B, n]``, whose result is ``[B, n]``.
        """
        return lambda users, rows: self(users, F.embedding(rows, items))

    def row_from_neighbors(self, entity: Entity, mean: torch.Tensor) -> torch.Tensor | None:
        """Return rows that are near the mean rows of an id's neighbors; None if users and items share no space.

        Args:
            entity: Whose rows: a user's neighbors are its items, an item's its users.
            mean: Mean rows of the neighbors, ``[n, w]``.
        """
        return None

    def loss(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """Return the loss of every row, ``[B]``: by default `bpr_loss`.

        Args:
            positives: Scores of positives ``[B]``.
            negatives: Scores of negatives ``[B, n]``.
        """
        return bpr_loss(positives, negatives)


class InnerProductRecommender(Recommender):
    """A model that ranks like ``query(user) · key(item)``, so that an inner-product index can retrieve its items."""

    ranks_by_inner_product = True

    def query(self, users: torch.Tensor) -> torch.Tensor:
        """Map users ``[B, d]`` to queries ``[B, e]``."""
        return users

    def key(self, items: torch.Tensor) -> torch.Tensor:
        """Map items ``[C, d]`` to keys ``[C, e]``."""
        return items

    def offset(self, users: torch.Tensor) -> torch.Tensor | None:
        """Return what the score of ``users [B, d]`` adds to all its inner products, ``[B]``; None: nothing."""
        return None

    def row_from_neighbors(self, entity: Entity, mean: torch.Tensor) -> torch.Tensor | None:
        return mean

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return inner_products(users, items)

    def score_all(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        scores, offset = self.query(users) @ self.key(items).T, self.offset(users)
        return scores if offset is None else scores + offset.unsqueeze(1)

    def scorer(self, items: torch.Tensor) -> ScoreRows:
        keys = self.key(items)
        return lambda users, rows: inner_products_with_rows(self.query(users), keys, rows)


class GraphRecommender(Recommender):
    """A model that propagates embeddings over the interaction graph."""

    @abstractmethod
    def propagate(
        self, users: torch.Tensor, items: torch.Tensor, to_users: Neighbors, to_items: Neighbors
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return final embeddings ``[U, d]`` and ``[I, d]``.

        Args:
            users, items: Layer 0, ``[U, d]`` and ``[I, d]``; or the parts of them on this rank.
            to_users: Function ``[I, d] -> [U, d]``: the sum over neighbors, weighted by ``1 / sqrt(item degree * user
                degree)``, in new memory, without gradients.
            to_items: Function ``[U, d] -> [I, d]``: the transpose of ``to_users``.
        """


class AttributeRecommender(Recommender):
    """A model that also learns from edges between items and their attributes.

    Its constructor takes ``embedding_dim``, the number of kinds of attributes, and its keyword arguments.
    """

    @abstractmethod
    def edge_loss(
        self, items: torch.Tensor, attributes: torch.Tensor, others: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """Return the weighted loss of edges, a scalar.

        Args:
            items, attributes, others: Heads, true tails and negative tails, ``[B, d]``.
            kinds: Kinds of attributes, int64 ``[B]``.
        """
