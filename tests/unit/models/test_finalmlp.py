"""FinalMLP against its formula in float64, row by row and head by head."""

from __future__ import annotations

import pytest
import torch

from cove_dist.errors import ConfigError
from cove_dist.models.ctr.finalmlp import BilinearFusion, FeatureGate, FinalMLP

from .reference import assert_same_values_and_gradients, hidden_layers, random_inputs

B, F, D = 5, 3, 4


def fusion(layer: BilinearFusion, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """``b + w_1 · o_1 + w_2 · o_2 + Σ_j o_1j W_j o_2j`` of one row, as published."""
    logit = layer.linear_1.bias[0] + layer.linear_1.weight[0] @ first + layer.weight_2 @ second
    parts = zip(first.chunk(layer.num_heads), layer.matrices, second.chunk(layer.num_heads), strict=True)
    return logit + sum(left @ matrix @ right for left, matrix, right in parts)


def gate(layer: FeatureGate, fields: torch.Tensor) -> torch.Tensor:
    """The weights of all features for one row."""
    read = layer.context.tolist()
    seen = torch.cat([fields[i] for i in read]) if read else layer.learned[0]
    return 2 / (1 + torch.exp(-(layer.output.weight @ hidden_layers(layer.mlp, seen) + layer.output.bias)))


def published(model: FinalMLP, fields: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
    rows = []
    for row in range(len(fields)):
        x = torch.cat([*fields[row], dense[row]])
        first = hidden_layers(model.mlp_1, gate(model.gate_1, fields[row]) * x)
        second = hidden_layers(model.mlp_2, gate(model.gate_2, fields[row]) * x)
        rows.append(fusion(model.fusion, first, second))
    return torch.stack(rows)


@pytest.mark.parametrize("num_dense", [0, 2])
@pytest.mark.parametrize(("context", "context_2"), [((), ()), ((0,), (1, 2))])
def test_equals_two_gated_streams_fused(context: tuple[int, ...], context_2: tuple[int, ...], num_dense: int) -> None:
    torch.manual_seed(0)
    model = FinalMLP(
        F, D, num_dense, hidden_units=(7, 6), hidden_units_2=(5, 9), dropout=0.0, gate_units=(8,),
        context=context, context_2=context_2, num_heads=3,
    ).double()  # fmt: skip
    for layer in (model.gate_1, model.gate_2):
        if layer.learned is not None:
            torch.nn.init.normal_(layer.learned)
    assert_same_values_and_gradients(model, published, *random_inputs(B, F, D, num_dense))


def test_the_fusion_in_the_papers_size_agrees_with_the_published_form_in_float64() -> None:
    torch.manual_seed(0)
    layer, first, second = BilinearFusion(1000, 1000, num_heads=10), torch.randn(20, 1000), torch.randn(20, 1000)
    ours = layer(first, second)
    rows = [fusion(layer.double(), *row) for row in zip(first.double(), second.double(), strict=True)]
    torch.testing.assert_close(ours.double(), torch.stack(rows), rtol=1e-5, atol=1e-5)


def test_the_second_stream_is_like_the_first_unless_told() -> None:
    model = FinalMLP(2, D, 0, hidden_units=(6, 5), num_heads=5)
    assert [p.shape for p in model.mlp_1.parameters()] == [p.shape for p in model.mlp_2.parameters()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_heads": 3}, r"model\.num_heads = 3: does not divide 5, the last of model\.hidden_units$"),
        ({"hidden_units_2": (7,), "num_heads": 5}, r"does not divide 7, the last of model\.hidden_units_2$"),
        ({"context_2": (0, 2), "num_heads": 5}, r"model\.context_2 = \[0, 2\]: no field at \[2\]; allowed are 0 to 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        FinalMLP(2, D, 0, hidden_units=(6, 5), **arguments)
