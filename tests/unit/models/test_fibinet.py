"""FiBiNET against its formula in float64, row by row and pair by pair."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from cove_dist.models.ctr.fibinet import BilinearInteraction, FiBiNET

from .reference import assert_same_values_and_gradients, hidden_layers, random_inputs

B, D = 6, 4


def pairs(layer: BilinearInteraction, kind: str, fields: list[torch.Tensor]) -> list[torch.Tensor]:
    """``(v_i W) * v_j`` of one row."""
    products = []
    for number, (i, j) in enumerate(combinations(range(len(fields)), 2)):
        matrix = layer.weight[{"all": 0, "each": i, "interaction": number}[kind]]
        products.append((fields[i] @ matrix) * fields[j])
    return products


def published(kind: str):
    def logits(model: FiBiNET, fields: torch.Tensor, dense: torch.Tensor, first_order: torch.Tensor) -> torch.Tensor:
        rows = []
        for row in range(len(fields)):
            vectors = list(fields[row])
            means = torch.stack([sum(vector) / len(vector) for vector in vectors])
            bottleneck = torch.clamp(model.senet.squeeze.weight @ means, min=0)
            importance = torch.clamp(model.senet.excite.weight @ bottleneck, min=0)
            weighted = [a * vector for a, vector in zip(importance, vectors, strict=True)]
            p, q = pairs(model.plain_pairs, kind, vectors), pairs(model.weighted_pairs, kind, weighted)
            hidden = hidden_layers(model.mlp, torch.cat([*p, *q, dense[row]]))
            linear = sum(first_order[row])
            if dense.shape[1]:
                linear = linear + dense[row] @ model.first_order.dense.weight[0]
            rows.append(linear + hidden @ model.deep_output.weight[0] + model.deep_output.bias[0])
        return torch.stack(rows)

    return logits


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
@pytest.mark.parametrize(("num_fields", "num_dense"), [(2, 0), (4, 2)])
def test_equals_senet_bilinear_pairs_and_mlp(num_fields: int, num_dense: int, kind: str) -> None:
    torch.manual_seed(1)
    arguments = {"bilinear": kind, "reduction_ratio": 2, "hidden_units": (6, 5), "dropout": 0.0}
    model = FiBiNET(num_fields, D, num_dense, **arguments).double()
    fields, dense = random_inputs(B, num_fields, D, num_dense)
    first_order = torch.randn(B, num_fields, dtype=torch.float64, requires_grad=True)
    assert_same_values_and_gradients(model, published(kind), fields, dense, first_order)


@pytest.mark.parametrize(("kind", "matrices"), [("all", 1), ("each", 3), ("interaction", 6)])
def test_which_pairs_share_a_matrix(kind: str, matrices: int) -> None:
    assert BilinearInteraction(4, D, kind).weight.shape == (matrices, D, D)


def test_between_two_fields_neither_the_kind_nor_the_ratio_matters() -> None:
    outputs = []
    for kind, ratio in (("interaction", 3), ("all", 3), ("each", 3), ("interaction", 2)):
        torch.manual_seed(0)
        model = FiBiNET(2, D, 0, bilinear=kind, reduction_ratio=ratio, hidden_units=(6,), dropout=0.0)
        outputs.append(model(*random_inputs(B, 2, D, 0, torch.float32), torch.zeros(B, 2)))
    assert all(torch.equal(output, outputs[0]) for output in outputs)
