"""Negatives from the category of the positive, against counts by brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from data_pipeline.history import History
from data_pipeline.schema import Categorical, Schema
from data_pipeline.streaming.blocks import Rows
from data_pipeline.streaming.categories import ItemsByCategory
from data_pipeline.streaming.draws import Draws, epoch_key
from data_pipeline.streaming.transforms import DrawNegatives
from data_pipeline.streaming.vocabulary import WithinCategories

DRAWS = Draws(epoch_key(7, 1), 0, 0)


def rows_of(users: list[int], items: list[int]) -> Rows:
    ids = [np.asarray(users, np.int64), np.asarray(items, np.int64)]
    return Rows(ids=ids, sequences=[], dense=np.zeros((len(users), 0)), labels=np.ones(len(users)))


def transform(histories: list[list[int]], num_items: int, count: int, share: float, codes: list[int]) -> DrawNegatives:
    users = Categorical("user", len(histories), len(histories), role="user")
    items = Categorical("item", num_items, num_items, role="item")
    schema = Schema(name="d", label=None, categorical=(users, items), dense=(), splits={})
    history = History(np.cumsum([0, *map(len, histories)]), np.array(sorted_items(histories), np.int64))
    draw = DrawNegatives(schema, history, count, "uniform", category_share=share)
    draw.categories = ItemsByCategory(np.asarray(codes))
    return draw


def sorted_items(histories: list[list[int]]) -> list[int]:
    return [item for items in histories for item in sorted(items)]


@given(st.data(), st.integers(1, 5), st.floats(0, 1))
def test_no_negative_is_in_the_history(data, count, share):
    num_items = data.draw(st.integers(2, 12))
    codes = data.draw(st.lists(st.integers(0, 3), min_size=num_items, max_size=num_items))
    subsets = st.sets(st.integers(0, num_items - 1), min_size=1, max_size=num_items - 1)
    histories = [sorted(items) for items in data.draw(st.lists(subsets, min_size=1, max_size=4))]
    pairs = [(user, item) for user, items in enumerate(histories) for item in items]
    rows = rows_of(*map(list, zip(*pairs, strict=True)))
    ((drawn, lengths),) = transform(histories, num_items, count, share, codes)(rows, DRAWS)
    assert lengths.tolist() == [count] * len(pairs)
    for (user, _), items in zip(pairs, drawn.reshape(-1, count).tolist(), strict=True):
        assert set(items).isdisjoint(histories[user]) and max(items) < num_items


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_negatives_follow_the_mixture_of_the_category_and_all_items(share):
    codes = [0, 0, 0, 0, 1, 1, 1, 2]
    history = [0, 4]  # of category 0: 1, 2, 3 are left, with probability 3 of 4; of all: 1, 2, 3, 5, 6, 7
    draws = 60_000
    rows = rows_of([0], [0])
    ((drawn, _),) = transform([history], len(codes), draws, share, codes)(rows, DRAWS)
    uniform = np.array([0, 1, 1, 1, 0, 1, 1, 1]) / 6
    within = np.array([0, 1, 1, 1, 0, 0, 0, 0]) / 4 + uniform / 4  # where item 0 itself is proposed, another is drawn
    expected = (1 - share) * uniform + share * within
    counts, possible = np.bincount(drawn, minlength=len(codes)), expected > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible], draws * expected[possible]).pvalue > 1e-4


def test_without_categories_the_share_changes_nothing():
    rows, histories = rows_of([0, 0, 1], [1, 2, 3]), [[1, 2], [3]]
    with_share, without = (transform(histories, 9, 4, share, [0] * 9) for share in (0.9, 0.0))
    with_share.categories = None
    assert with_share(rows, DRAWS)[0][0].tolist() == without(rows, DRAWS)[0][0].tolist()


def test_items_of_a_category_are_equally_likely():
    categories = ItemsByCategory(np.array([2, 0, 2, 2, 0]))
    uniform = (np.arange(300) + 0.5) / 300
    assert np.bincount(categories.draw(np.full(300, 0), uniform), minlength=5).tolist() == [100, 0, 100, 100, 0]
    assert np.bincount(categories.draw(np.full(300, 4), uniform), minlength=5).tolist() == [0, 150, 0, 0, 150]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_narrow_codes_draw_the_same_items(dtype: type) -> None:
    codes = np.random.default_rng(0).integers(0, 200, 3000)
    uniform = np.random.default_rng(1).random(10_000)
    items = np.random.default_rng(2).integers(0, 3000, len(uniform))
    wide, narrow = ItemsByCategory(codes), ItemsByCategory(codes.astype(dtype))
    assert wide.draw(items, uniform).tolist() == narrow.draw(items, uniform).tolist()
    assert wide.among(items).draw(items, uniform).tolist() == narrow.among(items).draw(items, uniform).tolist()
    shares = np.random.default_rng(3).random(3000)
    within = (WithinCategories(each, shares, 250).draw(uniform) for each in (codes, codes.astype(dtype)))
    assert next(within).tolist() == next(within).tolist()


def test_in_batch_negatives_of_a_category_are_items_of_the_batch():
    """In proportion to their rows in the batch, and none that the user has."""
    codes, histories = [0, 0, 0, 0, 1, 1], [[0], [1], [1, 4], [2]]
    rows = rows_of([0, 1, 2, 3], [0, 1, 1, 2])  # item 3 is not in the batch
    draw = transform(histories, len(codes), 30_000, 1.0, codes)
    draw._source = "in_batch"
    ((drawn, _),) = draw(rows, DRAWS)
    first = np.bincount(drawn.reshape(4, -1)[0], minlength=len(codes))
    assert first[[0, 3, 4, 5]].tolist() == [0, 0, 0, 0]
    assert chisquare(first[1:3], [20_000, 10_000]).pvalue > 1e-4


def test_categories_among_members_are_drawn_as_often_as_they_occur():
    categories = ItemsByCategory(np.array([2, 0, 2, 2, 0])).among(np.array([3, 1, 3, 0]))
    uniform = (np.arange(300) + 0.5) / 300
    assert np.bincount(categories.draw(np.full(300, 2), uniform), minlength=5).tolist() == [100, 0, 0, 200, 0]


@pytest.mark.parametrize("source", ["uniform", "popularity"])
def test_kept_items_are_never_drawn(source):
    users = Categorical("user", 1, 1, role="user")
    items = Categorical("item", 9, 8, role="item", kept=3)
    schema = Schema(name="d", label=None, categorical=(users, items), dense=(), splits={})
    draw = DrawNegatives(
        schema, History(np.array([0, 2]), np.array([0, 3])), 500, source, power=0.0, category_share=0.5
    )
    draw.categories = ItemsByCategory(np.zeros(8, np.int64))
    ((drawn, _),) = draw(rows_of([0], [0]), DRAWS)
    assert set(drawn.tolist()) == {1, 2, 4}
