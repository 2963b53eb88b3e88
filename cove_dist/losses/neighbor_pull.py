"""A pull of the two ends of every interaction towards each other, whose sum is a pull to the mean of one's neighbors.

Shapes: ``B`` interactions, ``d`` embedding dimension.
"""

from __future__ import annotations

import torch


def neighbor_pull(
    users: torch.Tensor, items: torch.Tensor, user_degrees: torch.Tensor, item_degrees: torch.Tensor
) -> torch.Tensor:
    """Compute ``mean over (u, i) of |w_u - sg(w_i)|² / n_u + |w_i - sg(w_u)|² / n_i``, where sg stops gradients.

    Over all interactions of a user the gradient of the first term is ``2 (w_u - mean of w_i over the user's items)``,
    up to the factor of the mean over rows: a one-sided form of graph regularization (Rao et al., NIPS 2015), which
    pulls rows to what a layer of LightGCN (He et al., SIGIR 2020) replaces them by, and never reads whole tables.

    Args:
        users: Table rows of the users, float ``[B, d]``.
        items: Table rows of their items, float ``[B, d]``.
        user_degrees: Numbers of training interactions n_u, ``[B]``, at least 1.
        item_degrees: Numbers of training interactions n_i, ``[B]``, at least 1.

    Returns:
        The loss, a scalar.
    """
    to_items = (users - items.detach()).square().sum(dim=1) / user_degrees
    to_users = (items - users.detach()).square().sum(dim=1) / item_degrees
    return (to_items + to_users).mean()
