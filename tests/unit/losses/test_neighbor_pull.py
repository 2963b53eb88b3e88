"""The neighbor pull against the formula in float64, and the gradient it has over all interactions."""

from __future__ import annotations

from pathlib import Path

import torch

from cove_dist.losses import neighbor_pull
from cove_dist.models.cf.bprmf import BPRMF
from cove_dist.models.cf.cfkg import CFKG
from cove_dist.tasks.cf.pull import NeighborPull
from data_pipeline.history import history_path, write_history

EDGES = torch.tensor([[0, 0], [0, 1], [0, 2], [1, 1], [2, 1], [2, 3]])  # users and their items


def vectors() -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return tuple(torch.randn(rows, 5, dtype=torch.float64, generator=random).requires_grad_() for rows in (3, 4))  # type: ignore[return-value]


def whole(users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    who, what = EDGES.T
    degrees = torch.bincount(who)[who], torch.bincount(what)[what]
    return neighbor_pull(users[who], items[what], *degrees)


def test_the_loss_is_the_formula() -> None:
    users, items = vectors()
    expected = 0.0
    for user, item in EDGES.tolist():
        distance = sum((a - b) ** 2 for a, b in zip(users[user].tolist(), items[item].tolist(), strict=True))
        degrees = (sum(u == user for u, _ in EDGES.tolist()), sum(i == item for _, i in EDGES.tolist()))
        expected += distance / degrees[0] + distance / degrees[1]
    torch.testing.assert_close(whole(users, items).item(), expected / len(EDGES))


def test_over_all_interactions_rows_are_drawn_to_the_mean_of_their_neighbors() -> None:
    """And not to their neighbors' own movement: the other end has no gradient."""
    users, items = vectors()
    who, what = EDGES.T
    of_users, of_items = torch.autograd.grad(whole(users, items) * len(EDGES) / 2, (users, items))
    for user in range(3):
        torch.testing.assert_close(of_users[user], users[user] - items[what[who == user]].mean(dim=0))
    for item in range(4):
        torch.testing.assert_close(of_items[item], items[item] - users[who[what == item]].mean(dim=0))


def test_it_pulls_to_where_the_score_of_the_model_is_greatest(tmp_path: Path) -> None:
    """CFKG's score of a user and an item is minus the square of their distance after translation."""
    who, what = EDGES.T
    write_history([(who.numpy(), what.numpy())], 3, len(EDGES), history_path(tmp_path, "train"))
    pull, head = NeighborPull(0.7, str(tmp_path), 4), CFKG(5, 1, init_std=1.0).double()
    users, items = (rows.detach() for rows in vectors())
    degrees = torch.bincount(who)[who], torch.bincount(what)[what]
    distances = -head(users[who], items[what].unsqueeze(1)).squeeze(1)
    expected = 0.7 * (distances / degrees[0] + distances / degrees[1]).mean()
    torch.testing.assert_close(pull.loss(head, users[who], items[what], who, what), expected)
    torch.testing.assert_close(pull.loss(BPRMF(5), users[who], items[what], who, what), 0.7 * whole(users, items))
