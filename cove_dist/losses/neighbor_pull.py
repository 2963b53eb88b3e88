"""A pull of the two ends of every interaction towards each other, whose sum is a pull to the mean of one's neighbors.

Shapes: ``B`` interactions, ``d`` embedding dimension.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from data_pipeline.schema import Entity

FromNeighbors = Callable[[Entity, torch.Tensor], torch.Tensor]


def neighbor_pull(
    users: torch.Tensor,
    items: torch.Tensor,
    user_degrees: torch.Tensor,
    item_degrees: torch.Tensor,
    from_neighbors: FromNeighbors = lambda entity, rows: rows,
) -> torch.Tensor:
    """Compute ``mean over (u, i) of |w_u - f_user(sg(w_i))|² / n_u + |w_i - f_item(sg(w_u))|² / n_i``.

    sg stops gradients, and f maps rows to where those of their neighbors are near by the model's score: itself for an
    inner product. Over all interactions of a user the gradient of the first term is
    ``2 (w_u - mean of f_user(w_i) over the user's items)``, up to the factor of the mean over rows: a one-sided form of
    graph regularization (Rao et al., NIPS 2015), which never reads whole tables.

    Args:
        users: Table rows of the users, float ``[B, d]``.
        items: Table rows of their items, float ``[B, d]``.
        user_degrees: Numbers of training interactions n_u, ``[B]``, at least 1.
        item_degrees: Numbers of training interactions n_i, ``[B]``, at least 1.
        from_neighbors: f, as `Recommender.row_from_neighbors`: of the entity of the rows that are pulled, and rows of
            their neighbors ``[B, d]``.

    Returns:
        The loss, a scalar.
    """
    to_items = (users - from_neighbors("user", items.detach())).square().sum(dim=1) / user_degrees
    to_users = (items - from_neighbors("item", users.detach())).square().sum(dim=1) / item_degrees
    return (to_items + to_users).mean()
