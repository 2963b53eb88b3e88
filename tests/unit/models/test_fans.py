"""FANS and its two-stage classifier against their formulas in float64."""

from __future__ import annotations

import torch

from cove_dist.models.layers.two_stage import TwoStageClassifier
from cove_dist.models.sequential.fans import FANS
from tests.unit.models.lists import HEADS, D, batch, bert, gelu, linear, normalized, ready


def fans() -> FANS:
    return ready(FANS(D, 5, 4, num_layers=2, num_heads=HEADS))


def test_equals_berts_encoder_over_both_halves() -> None:
    model = fans()
    items, mask = batch([5, 1, 3], slots=5)
    targets, target_mask = batch([4, 1, 2], slots=4, seed=1)
    known = torch.zeros_like(target_mask)
    known[0, :2] = known[2, 0] = True
    hidden = model(items, mask, 4, targets, known, target_mask)
    for b in range(3):
        given, continued = int(mask[b].sum()), int(target_mask[b].sum())
        answers = [targets[b, s] if known[b, s] else model.mask_vector for s in range(continued)]
        tokens = [model.start_vector, *items[b, :given], model.separator_vector, *answers, model.separator_vector]
        x = torch.stack(tokens) + model.positions.weight[: len(tokens)]
        x[: given + 2] += model.segments.weight[0]
        x[given + 2 :] += model.segments.weight[1]
        expected = bert(model.encoder, x)[given + 2 : given + 2 + continued]
        torch.testing.assert_close(hidden[b, :continued], expected)


def test_nothing_known_and_all_positions_by_default() -> None:
    model = fans()
    items, mask = batch([5, 1], slots=5)
    targets, everywhere = batch([4, 4], slots=4)
    hidden = model(items, mask, 4)
    assert hidden.shape == (2, 4, D)
    torch.testing.assert_close(hidden, model(items, mask, 4, targets, ~everywhere, everywhere))
    assert (hidden[:, 0] - hidden[:, 1]).abs().max() > 1e-3


def test_hidden_targets_are_not_seen() -> None:
    model = fans()
    items, mask = batch([5, 3], slots=5)
    targets, _ = batch([4, 4], slots=4)
    known = torch.tensor([[True, True, False, False]] * 2)
    before = model(items, mask, 4, targets, known)
    targets[:, 2:] *= -1
    torch.testing.assert_close(model(items, mask, 4, targets, known), before)
    targets[:, 1] *= -1
    assert (model(items, mask, 4, targets, known)[:, 3] - before[:, 3]).abs().max() > 1e-3


categories = torch.tensor([2, 0, 2, 2, 0, 4, 4, 2, 0])  # of nine items; 1 and 3 have none


def scored() -> tuple[TwoStageClassifier, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A classifier, hidden states, items, and the log-probabilities of all items, one after the other."""
    classifier = ready(TwoStageClassifier(D, 5))
    generator = torch.Generator().manual_seed(0)
    hidden, items = (torch.randn(n, D, generator=generator, dtype=torch.float64) for n in (6, 9))
    expected = torch.empty(6, 9, dtype=torch.float64)
    transform, output = classifier.head
    for n in range(6):
        logits = linear(output, normalized(transform[2], gelu(linear(transform[0], hidden[n]))))
        total = sum(logits[c].exp() for c in (0, 2, 4))
        for v, category in enumerate(categories.tolist()):
            inside = sum((hidden[n] @ items[w]).exp() for w in range(9) if categories[w] == category)
            expected[n, v] = (logits[category].exp() / total * (hidden[n] @ items[v]).exp() / inside).log()
    return classifier, hidden, items, expected


def test_an_items_probability_is_its_categorys_times_its_own_inside() -> None:
    classifier, hidden, items, expected = scored()
    result = classifier(hidden, items, categories)
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(result.exp().sum(dim=1), torch.ones(6, dtype=torch.float64))
