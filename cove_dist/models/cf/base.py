"""What every model of collaborative filtering offers to its task.

Shapes: ``B`` users, ``n`` items for each, ``C`` items for all, ``U`` users and ``I`` items there are, ``d`` the width
of a table's rows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
import torch.nn.functional as F

from cove_dist.models.base import Model

Neighbors = Callable[[torch.Tensor], torch.Tensor]


class Recommender(Model, ABC):
    """Scores of users and items. The task calls it on fused vectors (Eq. 4) where an entity has a quantizer.

    Attributes:
        rows_per_id: a table's rows are ``rows_per_id * embeddings.dim`` wide.
        regularization: weight of half the squared norm of a row's looked-up embeddings, before any quantizer.
    """

    task = "cf"
    uses_precision = False
    rows_per_id: ClassVar[int] = 1
    regularization: float = 0.0

    @abstractmethod
    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Scores ``[B, n]`` of ``users [B, d]`` for their ``items [B, n, d]``."""

    @abstractmethod
    def score_all(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Scores ``[B, C]`` of ``users [B, d]`` for the same ``items [C, d]``; without a user's constant."""

    def loss(self, positives: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        """BPR (Rendle et al., UAI 2009, BPR-Opt): ``-ln sigmoid(positive - negative)``, mean over pairs.

        Args:
            positives: scores ``[B]``.
            negatives: scores ``[B, n]``.
        """
        return F.softplus(negatives - positives.unsqueeze(1)).mean()


class InnerProductRecommender(Recommender):
    """One whose ranking is that of ``query(user) · key(item)``, so that an index of inner products serves it."""

    def query(self, users: torch.Tensor) -> torch.Tensor:
        """``[B, d] -> [B, e]``."""
        return users

    def key(self, items: torch.Tensor) -> torch.Tensor:
        """``[C, d] -> [C, e]``."""
        return items

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bd,bnd->bn", users, items)

    def score_all(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self.query(users) @ self.key(items).T


class GraphRecommender(Recommender):
    """One whose embeddings first travel over the graph of interactions."""

    @abstractmethod
    def propagate(
        self, users: torch.Tensor, items: torch.Tensor, to_users: Neighbors, to_items: Neighbors
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return final embeddings ``[U, d]`` and ``[I, d]``.

        Args:
            users, items: layer 0, ``[U, d]`` and ``[I, d]``; or the parts of them that a process holds.
            to_users: ``[I, d] -> [U, d]``: the sum over neighbours, each by ``1 / sqrt(its degree * the user's)``, in
                new memory. It has no gradient.
            to_items: ``[U, d] -> [I, d]``: likewise, by the transpose.
        """


class AttributeRecommender(Recommender):
    """One that also learns from edges between items and their attributes.

    It is built from ``embedding_dim`` and the number of kinds of attributes, then its keyword arguments.
    """

    @abstractmethod
    def edge_loss(
        self, items: torch.Tensor, attributes: torch.Tensor, others: torch.Tensor, kinds: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of edges, weighted, a scalar.

        Args:
            items, attributes, others: ``[B, d]``: heads, true tails and false ones.
            kinds: int64 ``[B]``: the kind of attribute.
        """
