"""The models of collaborative filtering against their formulas in float64, by loops over users and items."""

from __future__ import annotations

import pytest
import torch

from cove_dist.models.cf.base import InnerProductRecommender, Recommender
from cove_dist.models.cf.bprmf import BPRMF
from cove_dist.models.cf.cfkg import CFKG
from cove_dist.models.cf.lightgcn import LightGCN
from cove_dist.models.cf.neumf import NeuMF
from cove_dist.models.layers.neighbors import NeighborSum

B, N, D, USERS, ITEMS = 5, 3, 4, 6, 7


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_bprmf_is_the_inner_product() -> None:
    users, items = randn(B, D), randn(B, N, D, seed=1)
    scores = BPRMF(D)(users, items)
    for b in range(B):
        for n in range(N):
            torch.testing.assert_close(scores[b, n], (users[b] * items[b, n]).sum())


def test_bpr_is_the_mean_log_probability_of_the_right_order() -> None:
    positives, negatives = randn(B), randn(B, N, seed=1)
    pairs = [-torch.log(torch.sigmoid(positives[b] - negatives[b, n])) for b in range(B) for n in range(N)]
    torch.testing.assert_close(BPRMF(D).loss(positives, negatives).mean(), torch.stack(pairs).mean())


def test_neumf_is_its_formula() -> None:
    model = NeuMF(D, hidden_units=(5, 3)).double()
    users, items = randn(B, 2 * D), randn(B, N, 2 * D, seed=1)
    scores = model(users, items)
    for b in range(B):
        for n in range(N):
            hidden = torch.cat([users[b, D:], items[b, n, D:]])
            for layer in (model.mlp[0], model.mlp[2]):
                hidden = torch.relu(layer.weight @ hidden + layer.bias)
            joined = torch.cat([users[b, :D] * items[b, n, :D], hidden])
            torch.testing.assert_close(scores[b, n], model.output.weight[0] @ joined + model.output.bias[0])


def test_neumf_learns_by_cross_entropy() -> None:
    positives, negatives = randn(B), randn(B, N, seed=1)
    terms = [torch.log(torch.sigmoid(positives)), torch.log(1 - torch.sigmoid(negatives)).flatten()]
    torch.testing.assert_close(NeuMF(D).loss(positives, negatives).mean(), -torch.cat(terms).mean())


def test_cfkg_translates() -> None:
    model = CFKG(D, 2, init_std=0.5).double()
    users, items = randn(B, D), randn(B, N, D, seed=1)
    scores = model(users, items)
    for b in range(B):
        for n in range(N):
            torch.testing.assert_close(scores[b, n], -((users[b] + model.buy - items[b, n]).norm() ** 2))


def test_cfkg_wants_a_margin_on_buys_and_on_edges() -> None:
    model = CFKG(D, 2, margin=0.7, edge_weight=0.3, init_std=0.5).double()
    positives, negatives = randn(B), randn(B, N, seed=1)
    pairs = [max(0.0, 0.7 - positives[b] + negatives[b, n]) for b in range(B) for n in range(N)]
    torch.testing.assert_close(model.loss(positives, negatives).mean(), torch.as_tensor(sum(pairs) / len(pairs)))
    heads, tails, others, kinds = randn(B, D), randn(B, D, seed=1), randn(B, D, seed=2), torch.tensor([0, 1, 1, 0, 1])
    moved = [heads[b] + model.kinds[kinds[b]] for b in range(B)]
    distances = [((moved[b] - tails[b]).norm() ** 2, (moved[b] - others[b]).norm() ** 2) for b in range(B)]
    expected = 0.3 * sum(max(0.0, 0.7 + true - false) for true, false in distances) / B
    torch.testing.assert_close(model.edge_loss(heads, tails, others, kinds), torch.as_tensor(expected))


@pytest.mark.parametrize("model", [BPRMF(D), NeuMF(D, hidden_units=(5, 3)), CFKG(D, 2), LightGCN(D)])
def test_scores_of_all_items_are_those_of_pairs(model: Recommender) -> None:
    model = model.double()
    users, items = randn(B, model.rows_per_id * D), randn(ITEMS, model.rows_per_id * D, seed=1)
    together = model.score_all(users, items)
    one_by_one = model(users, items.expand(B, -1, -1))
    torch.testing.assert_close(together, one_by_one)
    rows = torch.tensor([[3, 0, 3, 6], [1, 2, 5, 4], [6, 6, 6, 6], [0, 1, 2, 3], [5, 0, 4, 2]])
    some = model.scorer(items)(users, rows) - one_by_one.gather(1, rows)
    torch.testing.assert_close(some, some[:, :1].expand_as(some))
    if isinstance(model, InnerProductRecommender):
        offset = model.offset(users)
        products = model.query(users) @ model.key(items).T
        torch.testing.assert_close(together, products if offset is None else products + offset[:, None])


@pytest.mark.parametrize("layers", [1, 3])
def test_lightgcn_averages_sums_over_neighbors(layers: int) -> None:
    """Eq. 4 of the paper by loops over a graph in which one user and one item have no neighbors."""
    edges = [(u, i) for u in range(USERS - 1) for i in range(ITEMS - 1) if (u * 3 + i * 5) % 4 < 2]
    users, items = randn(USERS, D).requires_grad_(), randn(ITEMS, D, seed=1).requires_grad_()
    of_user = {u: [i for v, i in edges if v == u] for u in range(USERS)}
    of_item = {i: [u for u, j in edges if j == i] for i in range(ITEMS)}
    u_layers, i_layers = [users], [items]
    zero = torch.zeros(D, dtype=torch.float64)
    for _ in range(layers):
        e_u, e_i = u_layers[-1], i_layers[-1]
        norm = {(u, i): (len(of_user[u]) * len(of_item[i])) ** 0.5 for u, i in edges}
        u_layers.append(torch.stack([sum((e_i[i] / norm[u, i] for i in of_user[u]), zero) for u in range(USERS)]))
        i_layers.append(torch.stack([sum((e_u[u] / norm[u, i] for u in of_item[i]), zero) for i in range(ITEMS)]))
    expected = torch.stack(u_layers).mean(0), torch.stack(i_layers).mean(0)

    rows, columns = torch.tensor(edges).T
    weights = torch.tensor([norm[u, i] ** -1 for u, i in edges], dtype=torch.float64)
    order = torch.randperm(len(edges), generator=torch.Generator().manual_seed(0))
    rows, columns, weights = rows[order], columns[order], weights[order]
    to_users = NeighborSum(rows, columns, weights, USERS)
    to_items = NeighborSum(columns, rows, weights, ITEMS)
    found = LightGCN(D, layers=layers).propagate(users, items, to_users, to_items)
    torch.testing.assert_close(found, expected)

    probes = randn(USERS, D, seed=2), randn(ITEMS, D, seed=3)
    totals = [
        sum((part * probe).sum() for part, probe in zip(final, probes, strict=True)) for final in (found, expected)
    ]
    gradients = [torch.autograd.grad(total, (users, items)) for total in totals]
    torch.testing.assert_close(*gradients)
