"""DIN against the formula of its paper (Eq. 3), one entry at a time in float64."""

from __future__ import annotations

import pytest
import torch

from cove_dist.models.ctr.din import DIN
from tests.unit.models.reference import assert_same_values_and_gradients, hidden_layers, random_inputs

B, F, D, S, T = 6, 3, 4, 2, 5


def lists() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A candidate, entries and their mask: some lists are full, some are empty, and what is behind them is not zero."""
    generator = torch.Generator().manual_seed(1)
    item = torch.randn(B, D, generator=generator, dtype=torch.float64, requires_grad=True)
    entries = torch.randn(B, S, T, D, generator=generator, dtype=torch.float64, requires_grad=True)
    lengths = torch.tensor([[0, 5], [1, 0], [3, 2], [0, 0], [5, 5], [4, 1]])
    return item, entries, torch.arange(T) < lengths.unsqueeze(2)


def formula(
    model: DIN,
    fields: torch.Tensor,
    dense: torch.Tensor,
    item: torch.Tensor,
    entries: torch.Tensor,
    present: torch.Tensor,
) -> torch.Tensor:
    logits = []
    for row in range(len(fields)):
        interests = []
        for history, exists in zip(entries[row], present[row], strict=True):
            weights, keys = [], [key for key, there in zip(history, exists, strict=True) if there]
            for key in keys:
                hidden = torch.cat([item[row], key, item[row] - key, item[row] * key])
                first, slope, last = model.attention.unit
                hidden = first.weight @ hidden + first.bias
                hidden = torch.where(hidden > 0, hidden, slope.weight * hidden)
                weights.append((last.weight @ hidden + last.bias)[0])
            if model.attention.softmax and weights:
                total = sum(weight.exp() for weight in weights)
                weights = [weight.exp() / total for weight in weights]
            pairs = zip(weights, keys, strict=True)
            interests.append(sum((weight * key for weight, key in pairs), torch.zeros(D, dtype=torch.float64)))
        inputs = torch.cat([fields[row].flatten(), *interests, dense[row]])
        logits.append(model.output.weight[0] @ hidden_layers(model.mlp, inputs) + model.output.bias[0])
    return torch.stack(logits)


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("num_dense", [0, 2])
def test_equals_the_formula(softmax: bool, num_dense: int) -> None:
    torch.manual_seed(0)
    model = DIN(F + S, D, num_dense, attention_units=(3,), softmax=softmax, hidden_units=(7, 5), dropout=0.0).double()
    if softmax:  # a constant added to all weights of a list changes nothing
        model.attention.unit[-1].bias.requires_grad_(False)
    fields, dense = random_inputs(B, F, D, num_dense)
    inputs = fields, dense, *lists()
    if softmax:
        with torch.no_grad():
            torch.testing.assert_close(model(*inputs), formula(model, *inputs))
    else:
        assert_same_values_and_gradients(model, formula, *inputs)


def test_entries_behind_a_list_have_no_effect() -> None:
    model = DIN(F + S, D, 0, attention_units=(3, 2), hidden_units=(7,)).double().eval()
    fields, dense = random_inputs(B, F, D, 0)
    item, entries, present = lists()
    longer = torch.cat([entries, torch.full((B, S, 2, D), 1e6, dtype=torch.float64)], dim=2)
    mask = torch.cat([present, torch.zeros(B, S, 2, dtype=torch.bool)], dim=2)
    torch.testing.assert_close(model(fields, dense, item, longer, mask), model(fields, dense, item, entries, present))
