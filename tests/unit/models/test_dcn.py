"""DCN against its formula in float64, row by row."""

from __future__ import annotations

import pytest
import torch

from cove_dist.models.ctr.dcn import DCN

from .reference import assert_same_values_and_gradients, hidden_layers, random_inputs

B, F, D = 5, 3, 4


def published(model: DCN, fields: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    """Cross layers as printed, with the outer product ``x_0 x_l^T``, one row at a time."""
    logits = []
    for row in range(len(fields)):
        x_0 = torch.cat([*fields[row], dense[row]])
        x = x_0
        for weight, bias in zip(model.cross.weight, model.cross.bias, strict=True):
            x = torch.outer(x_0, x) @ weight + bias + x
        both = torch.cat([x, hidden_layers(model.mlp, x_0)])
        weights = torch.cat([model.cross_output.weight[0], model.deep_output.weight[0]])
        logits.append(both @ weights + model.deep_output.bias[0])
    return torch.stack(logits)


@pytest.mark.parametrize("num_dense", [0, 2])
@pytest.mark.parametrize("cross_layers", [1, 3])
def test_equals_cross_layers_parallel_to_an_mlp(cross_layers: int, num_dense: int) -> None:
    torch.manual_seed(0)
    model = DCN(F, D, num_dense, cross_layers=cross_layers, hidden_units=(6, 5), dropout=0.0).double()
    torch.nn.init.normal_(model.cross.bias)
    assert_same_values_and_gradients(model, published, *random_inputs(B, F, D, num_dense))


def test_two_ids_without_dense_columns_in_the_papers_size() -> None:
    model = DCN(2, 64, 0)
    assert sum(p.numel() for p in model.cross.parameters()) == 2 * 3 * 128
    assert model(*random_inputs(B, 2, 64, 0, torch.float32)).shape == (B,)
