"""Expected values over random orders of ties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from cove_dist.evaluation.positions import Positions, cumulative_discounts
from tests.unit.evaluation.ties import averaged_over_orders, expected

DEPTH = 7


@st.composite
def tied_lists(draw: st.DrawFn, longest: int) -> list[tuple[list[int], list[bool], int]]:
    """Lists of scores with ties, which items are relevant, and how many further ones are not listed."""
    items = st.tuples(st.integers(0, 3), st.booleans())
    rows = draw(st.lists(st.tuples(st.lists(items, min_size=1, max_size=longest), st.integers(0, 2)), max_size=6))
    return [([score for score, _ in row], [hit for _, hit in row], unlisted) for row, unlisted in rows]


def positions_of(lists: list[tuple[list[int], list[bool], int]]) -> Positions:
    rows = []
    for number, (scores, relevant, unlisted) in enumerate(lists):
        for score, hit in zip(scores, relevant, strict=True):
            if hit:
                rows.append((number, sum(other > score for other in scores), scores.count(score)))
        rows += [(number, DEPTH, 1)] * unlisted
    columns = torch.tensor(rows, dtype=torch.int64).view(-1, 3).unbind(1)
    return Positions(*columns, len(lists), DEPTH)


@given(tied_lists(longest=12), st.integers(1, DEPTH))
def test_expected_values_are_those_of_counting(lists: list, k: int) -> None:
    positions = positions_of(lists)
    found = {
        "ndcg": positions.dcg(k),
        "mrr": positions.reciprocal_rank(k),
        "hr": positions.hit(k),
        "recall": positions.found(k),
    }
    for number, (scores, relevant, unlisted) in enumerate(lists):
        positives = max(1, sum(relevant) + unlisted)
        plain = expected(scores, relevant, positives, k)
        ideal = {"ndcg": cumulative_discounts(k)[min(positives, k)].item(), "recall": positives}
        for name, values in found.items():
            assert values[number].item() / ideal.get(name, 1) == pytest.approx(plain[name], abs=1e-12)


@given(tied_lists(longest=6), st.integers(1, DEPTH))
def test_counting_equals_the_mean_over_all_orders(lists: list, k: int) -> None:
    for scores, relevant, unlisted in lists[:2]:
        positives = max(1, sum(relevant) + unlisted)
        averaged = averaged_over_orders(scores, relevant, positives, k)
        assert expected(scores, relevant, positives, k) == pytest.approx(averaged, abs=1e-12)


@given(tied_lists(longest=30), st.integers(1, 12))
def test_counting_has_the_ndcg_of_scikit_learn(lists: list, k: int) -> None:
    for scores, relevant, _ in lists:
        if len(scores) > 1 and any(relevant):
            plain = expected(scores, relevant, sum(relevant), k)["ndcg"]
            assert plain == pytest.approx(ndcg_score([relevant], [scores], k=k), abs=1e-9)


def test_one_relevant_item_of_a_million_that_tie() -> None:
    """As in a full ranking by a constant model: no loss of precision."""
    items = 1_000_000
    positions = Positions(torch.tensor([0]), torch.tensor([0]), torch.tensor([items]), 1, 10)
    assert positions.hit(10).item() == pytest.approx(10 / items, rel=1e-9)
    assert positions.found(10).item() == pytest.approx(10 / items, rel=1e-12)
    assert positions.reciprocal_rank(10).item() == pytest.approx(sum(1 / np.arange(1, 11)) / items, rel=1e-8)
    assert positions.dcg(10).item() == pytest.approx(sum(1 / np.log2(np.arange(2, 12))) / items, rel=1e-9)


def test_lists_in_a_fixed_order_have_no_ties() -> None:
    relevant = torch.tensor([[False, True, True], [False, False, False]])
    positions = Positions.of_mask(relevant, 3)
    assert positions.hit(2).tolist() == [1, 0]
    assert positions.reciprocal_rank(3).tolist() == [0.5, 0]
    assert positions.found(3).tolist() == [2, 0]
