"""BERT4Rec against its formula in float64."""

from __future__ import annotations

import torch

from cove_dist.models.sequential.bert4rec import BERT4Rec
from tests.unit.models.lists import HEADS, D, batch, bert, ready


def test_equals_berts_encoder_over_items_and_mask_vectors() -> None:
    model = ready(BERT4Rec(D, 3, 4, num_layers=2, num_heads=HEADS))
    items, mask = batch([7, 2, 5], slots=7)
    masked = torch.zeros_like(mask)
    masked[0, [1, 6]] = masked[1, 1] = True
    hidden = model(items, mask, masked)
    for b, length in enumerate(mask.sum(dim=1).tolist()):
        x = items[b, :length].clone()
        x[masked[b, :length]] = model.mask_vector
        torch.testing.assert_close(hidden[b, :length], bert(model.encoder, x + model.positions.weight[:length]))


def test_a_masked_item_is_hidden_and_later_items_are_seen() -> None:
    model = ready(BERT4Rec(D, 3, 4, num_layers=2, num_heads=HEADS))
    items, mask = batch([6], slots=6)
    masked = torch.zeros_like(mask)
    masked[0, 2] = True
    before = model(items, mask, masked)
    items[0, 2] *= -1
    torch.testing.assert_close(model(items, mask, masked), before)
    items[0, 5] *= -1
    assert (model(items, mask, masked)[0, 2] - before[0, 2]).abs().max() > 1e-3
