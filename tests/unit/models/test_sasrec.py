"""SASRec against its formula in float64."""

from __future__ import annotations

import torch

from cove_dist.models.sequential.sasrec import SASRec
from tests.unit.models.lists import HEADS, D, batch, linear, normalized, ready, self_attention


def test_equals_blocks_of_causal_attention_and_a_relu_network() -> None:
    model = ready(SASRec(D, 3, 4, num_layers=2, num_heads=HEADS))
    items, mask = batch([7, 2, 5], slots=7)
    hidden = model(items, mask)
    for b, length in enumerate(mask.sum(dim=1).tolist()):
        x = items[b, :length] * D**0.5 + model.positions.weight[:length]
        for block in model.blocks:
            x = x + self_attention(block.attention, normalized(block.attention_norm, x), causal=True)
            inner = torch.relu(linear(block.feed_forward[0], normalized(block.feed_forward_norm, x)))
            assert inner.shape[1] == D
            x = x + linear(block.feed_forward[2], inner)
        torch.testing.assert_close(hidden[b, :length], normalized(model.norm, x))
