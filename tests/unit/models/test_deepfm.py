"""DeepFM against its formula in float64."""

from __future__ import annotations

from itertools import combinations

import torch

from cove_dist.models.ctr.deepfm import DeepFM

B, F, D, DENSE = 7, 3, 4, 2


def inputs(num_dense: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((B, F, D), (B, num_dense), (B, F))
    return tuple(torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)


def test_equals_first_order_plus_pairs_plus_mlp() -> None:
    model = DeepFM(F, D, DENSE, hidden_units=(5, 6), dropout=0.0).double()
    fields, dense, first_order = inputs(DENSE)
    pairs = sum((fields[:, i] * fields[:, j]).sum(dim=1) for i, j in combinations(range(F), 2))
    hidden = torch.cat([fields.reshape(B, -1), dense], dim=1)
    for layer in (model.mlp[0], model.mlp[2]):
        hidden = torch.relu(hidden @ layer.weight.T + layer.bias)
    deep = hidden @ model.deep_output.weight[0] + model.deep_output.bias
    linear = first_order.sum(dim=1) + dense @ model.first_order.dense.weight[0]
    torch.testing.assert_close(model(fields, dense, first_order), linear + pairs + deep)


def test_ids_without_dense_columns() -> None:
    model = DeepFM(F, D, 0, hidden_units=(5,), dropout=0.0).double()
    fields, dense, first_order = inputs(0)
    moved = model(fields, dense, first_order + 1.0)
    torch.testing.assert_close(moved, model(fields, dense, first_order) + F)


def test_every_parameter_learns() -> None:
    model = DeepFM(F, D, DENSE, hidden_units=(5, 6)).double()
    model(*inputs(DENSE)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
