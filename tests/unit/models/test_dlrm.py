"""DLRM against its formula in float64."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from cove_dist.models.ctr.dlrm import DLRM

B, F, D = 7, 3, 4


@pytest.mark.parametrize("num_dense", [0, 2])
def test_equals_top_mlp_of_direct_inputs_and_all_pairs(num_dense: int) -> None:
    torch.manual_seed(0)
    model = DLRM(F, D, num_dense, bottom_units=(5,), hidden_units=(6,), dropout=0.0).double()
    fields = torch.randn(B, F, D, dtype=torch.float64)
    dense = torch.randn(B, num_dense, dtype=torch.float64)
    vectors = list(fields.unbind(1))
    direct = fields.reshape(B, -1)
    if num_dense:
        direct = dense
        for layer in (model.bottom[0], model.bottom[2]):
            direct = torch.relu(direct @ layer.weight.T + layer.bias)
        vectors.insert(0, direct)
    pairs = torch.stack([(left * right).sum(dim=1) for left, right in combinations(vectors, 2)], dim=1)
    hidden = torch.relu(torch.cat([direct, pairs], dim=1) @ model.top[0].weight.T + model.top[0].bias)
    expected = hidden @ model.output.weight[0] + model.output.bias
    torch.testing.assert_close(model(fields, dense), expected)


def test_every_parameter_learns() -> None:
    model = DLRM(F, D, 2, bottom_units=(5,), hidden_units=(6, 5)).double()
    model(torch.randn(B, F, D, dtype=torch.float64), torch.randn(B, 2, dtype=torch.float64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
