"""What each kind of model is asked to predict in training, against loops over lists."""

from __future__ import annotations

import pytest
import torch

from cove_dist.models.sequential.bert4rec import BERT4Rec
from cove_dist.tasks.sequential.positions import Embedded, predict_masked, predict_next, predict_targets
from tests.unit.sequential.models import Masked, OwnerAware, Parallel, Recurrent

D = 4
INPUTS, TARGETS = [2, 1, 3], [2, 2, 1]


@pytest.fixture
def lists() -> Embedded:
    torch.manual_seed(0)
    lengths = torch.tensor(INPUTS), torch.tensor(TARGETS)
    return Embedded(torch.randn(sum(INPUTS) + sum(TARGETS), D), *lengths, torch.randn(3, D))


def places_of(row: int) -> list[int]:
    """Of a list's items, in order, their places among all."""
    first, second = sum(INPUTS[:row]), sum(INPUTS) + sum(TARGETS[:row])
    return [*range(first, first + INPUTS[row]), *range(second, second + TARGETS[row])]


@pytest.mark.parametrize("kind", [Recurrent, OwnerAware])
def test_every_item_but_the_first_is_predicted_from_those_before_it(kind: type, lists: Embedded) -> None:
    model = kind(D, 3, 2)
    predicted = predict_next(model, lists)
    expected_hidden, expected_which = [], []
    for row in range(3):
        places = places_of(row)
        for last in range(1, len(places)):
            before = lists.items[places[:last]][None]
            mask = torch.ones(1, last, dtype=torch.bool)
            owner = (lists.owner[row][None],) if kind is OwnerAware else ()
            expected_hidden.append(model(before, mask, *owner)[0, -1])
            expected_which.append(places[last])
    assert predicted.which.tolist() == expected_which
    torch.testing.assert_close(predicted.hidden, torch.stack(expected_hidden))


def test_masked_items_are_drawn_among_real_ones_and_each_list_has_one(lists: Embedded) -> None:
    model, seen = Masked(D, 3, 2), set()
    for _ in range(50):
        predicted = predict_masked(model, lists, share=0.3, last=0.0)
        assert len(predicted.hidden) == len(predicted.which)
        chosen = set(predicted.which.tolist())
        assert all(chosen & set(places_of(row)) for row in range(3))
        seen |= chosen
    assert seen == set(range(len(lists.items)))


def test_what_is_masked_does_not_reach_its_own_prediction(lists: Embedded) -> None:
    model = Masked(D, 3, 2)
    torch.manual_seed(1)
    predicted = predict_masked(model, lists, share=0.3, last=0.5)
    changed = lists.items.clone()
    changed[predicted.which] += 1
    torch.manual_seed(1)
    again = predict_masked(model, lists._replace(items=changed), share=0.3, last=0.5)
    assert torch.equal(again.hidden, predicted.hidden)


def test_a_list_that_ends_early_has_its_end_predicted_from_what_is_before(lists: Embedded) -> None:
    model, ends = BERT4Rec(D, 3, 2, num_layers=1, num_heads=2).eval(), [set(), set(), set()]
    for _ in range(50):
        predicted = predict_masked(model, lists, share=1.0, last=1.0)
        for row, (hidden, which) in enumerate(zip(predicted.hidden, predicted.which.tolist(), strict=True)):
            places = places_of(row)
            length = places.index(which) + 1
            ends[row].add(length)
            masked = torch.arange(length)[None] == length - 1
            expected = model(lists.items[places[:length]][None], torch.ones(1, length, dtype=torch.bool), masked)
            torch.testing.assert_close(hidden, expected[0, -1])
    assert ends == [{2, 3, 4}, {2, 3}, {2, 3, 4}]


@pytest.mark.parametrize(("share", "known"), [(0.0, [0, 0, 0]), (0.5, [1, 1, 0]), (0.99, [1, 1, 0])])
def test_targets_are_predicted_from_the_input_and_what_is_known(
    lists: Embedded, share: float, known: list[int]
) -> None:
    model = Parallel(D, 3, 2)
    predicted = predict_targets(model, lists, share)
    expected_hidden, expected_which = [], []
    for row in range(3):
        places = places_of(row)
        shown = places[: INPUTS[row] + known[row]]
        mean = model.linear(lists.items[shown].mean(dim=0))
        for place in range(known[row], TARGETS[row]):
            expected_hidden.append(mean + model.positions[place])
            expected_which.append(places[INPUTS[row] + place])
    assert predicted.which.tolist() == expected_which
    torch.testing.assert_close(predicted.hidden, torch.stack(expected_hidden))
