"""CAR against its formula in float64."""

from __future__ import annotations

import pytest
import torch

from cove_dist.models.sequential.car import CAR
from tests.unit.models.lists import HEADS, D, attention, batch, linear, normalized, ready


@pytest.mark.parametrize("with_owner", [True, False])
def test_equals_the_gated_sum_of_two_preferences_and_the_latest_item(with_owner: bool) -> None:
    model = ready(CAR(D, 3, 4, num_layers=2, num_heads=HEADS))
    items, mask = batch([7, 1, 5], slots=7)
    owner = batch([1] * 3, slots=1, seed=1)[0][:, 0] if with_owner else None
    hidden = model(items, mask, owner)
    for b, length in enumerate(mask.sum(dim=1).tolist()):
        x = items[b, :length] * D**0.5 + model.positions.weight[:length]
        for block in model.blocks:
            latest = normalized(block.norm, x)
            weight, bias = block.keys.weight, block.keys.bias
            keys = [x @ weight[i * D : (i + 1) * D].T + bias[i * D : (i + 1) * D] for i in range(3)]
            current = attention(linear(block.current_query, latest), keys[0], x, causal=True)
            general = attention(block.general_query.expand_as(x), keys[1], x, causal=True)
            summary = attention(block.summary_query.expand_as(x), keys[2], x, causal=True)
            mixed = []
            for t in range(length):
                consistency = (x[t] - x[: t + 1].mean(dim=0)).abs()
                gate = torch.softmax(linear(block.gate, torch.cat([summary[t], consistency])), dim=0)
                mixed.append(gate[0] * current[t] + gate[1] * general[t] + gate[2] * latest[t])
            x = torch.stack(mixed)
            if owner is not None:
                x = x + owner[b] * D**0.5
            x = normalized(block.feed_forward_norm, x)
            x = x + linear(block.feed_forward[3], torch.relu(linear(block.feed_forward[0], x)))
        torch.testing.assert_close(hidden[b, :length], normalized(model.norm, x))
