"""Layers that architectures share."""

from __future__ import annotations

import pytest
import torch

from cove_dist.models.layers.dropout import Dropout
from cove_dist.models.layers.inner_products import inner_products, inner_products_with_rows
from cove_dist.models.layers.mlp import MLP


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p: float) -> None:
    torch.manual_seed(0)
    out = Dropout(p)(torch.ones(1001, 999))
    assert (out == 0).double().mean().item() == pytest.approx(p, abs=0.002)
    assert out[out != 0].unique().tolist() == pytest.approx([1 / (1 - p)], rel=1e-4)
    assert out.double().mean().item() == pytest.approx(1, rel=0.01)


def test_neighbors_are_dropped_independently() -> None:
    torch.manual_seed(0)
    zeros = (Dropout(0.3)(torch.ones(1_000_000)) == 0).double()
    for lag in (1, 2, 3, 4, 8):
        assert (zeros[lag:] * zeros[:-lag]).mean().item() == pytest.approx(0.09, abs=0.002)


def test_dropout_follows_the_generator_and_passes_the_gradient_through_its_mask() -> None:
    layer, x = Dropout(0.4), torch.ones(37, requires_grad=True)
    torch.manual_seed(5)
    first = layer(x)
    torch.manual_seed(5)
    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)
    first.sum().backward()
    assert torch.equal(x.grad, first.detach())


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_the_ends_of_the_range(p: float) -> None:
    assert torch.equal(Dropout(p)(torch.ones(5)), torch.ones(5) * (1 - p))


def test_nothing_is_dropped_in_evaluation() -> None:
    x = torch.randn(5, 3)
    assert Dropout(0.5).eval()(x) is x


def test_an_mlp_has_the_sizes_asked_for() -> None:
    mlp = MLP(6, (5, 4), dropout=0.2)
    assert mlp(torch.randn(3, 6)).shape == (3, 4)
    assert mlp.out_dim == 4
    assert sum(isinstance(layer, Dropout) for layer in mlp) == 2
    assert not any(isinstance(layer, Dropout) for layer in MLP(6, (5,)))


@pytest.mark.parametrize("n", [1, 2, 17])
def test_inner_products_with_and_without_gradients_equal_the_float64_sum(n: int) -> None:
    torch.manual_seed(0)
    queries, keys = torch.randn(5, 8, requires_grad=True), torch.randn(5, n, 8, requires_grad=True)
    expected = torch.einsum("bd,bnd->bn", queries.double(), keys.double())
    weights = torch.randn(5, n)
    torch.testing.assert_close(inner_products(queries, keys), expected.float())
    with torch.no_grad():
        torch.testing.assert_close(inner_products(queries, keys), expected.float())
    (inner_products(queries, keys) * weights).sum().backward()
    torch.testing.assert_close(queries.grad, torch.einsum("bn,bnd->bd", weights, keys.detach()))
    torch.testing.assert_close(keys.grad, torch.einsum("bn,bd->bnd", weights, queries.detach()))


@pytest.mark.parametrize(("batch", "n"), [(5, 9), (5, 17), (1, 1), (0, 0), (3, 0)])
def test_inner_products_with_rows_of_a_table_equal_the_float64_sum(batch: int, n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    queries, table = torch.randn(batch, 8, generator=generator), torch.randn(11, 8, generator=generator)
    table[3] = table[7]
    rows = torch.randint(11, (batch, n), generator=generator)
    found = inner_products_with_rows(queries, table, rows)
    torch.testing.assert_close(found, torch.einsum("bd,bnd->bn", queries.double(), table[rows].double()).float())
    same = torch.where(rows == 3, 7, rows)
    assert torch.equal(found, inner_products_with_rows(queries, table, same))  # equal rows tie
