"""Ids that training replaces by the out-of-vocabulary row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data_pipeline.history import History
from data_pipeline.schema import Categorical, Schema
from data_pipeline.streaming.blocks import Rows
from data_pipeline.streaming.draws import Draws, epoch_key
from data_pipeline.streaming.transforms import DrawNegatives, DropIds

USERS, ITEMS, SHARE = 40, 50, 0.3
SCHEMA = Schema(
    "data",
    None,
    (Categorical("user_id", USERS, USERS, "user"), Categorical("item_id", ITEMS, ITEMS, "item")),
    (),
    {},
    implicit=True,
)
HISTORY_COLUMN = Categorical("history", ITEMS, ITEMS, sequence=True, table="item_id", max_length=4)
HISTORY = History(np.arange(USERS + 1), np.arange(USERS))


def dropped(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    """The ids and negatives of the rows ``first … last-1`` of a step, as a rank with these rows sees them."""
    users = np.arange(4000)[first:last] % USERS
    rows = Rows(np.stack([users, users]), [], np.empty((len(users), 0)), np.ones(len(users)))
    negatives = DrawNegatives(SCHEMA, HISTORY, 3, "uniform")
    draws = Draws(epoch_key(5, 1), 2, 100 + first)
    rows.sequences += negatives(rows, draws.stream(0))
    before = rows.ids.copy(), rows.sequences[0][0].copy()
    assert DropIds(SCHEMA, SHARE, [negatives], width=3)(rows, draws.stream(1)) == []
    after = rows.ids, rows.sequences[0][0]
    for old, new, reserved in zip(before, after, (np.array([[USERS], [ITEMS]]), ITEMS), strict=True):
        assert ((new == old) | (new == reserved)).all()
    return after


def test_users_items_and_negatives_are_replaced_equally_often() -> None:
    ids, negatives = dropped(0, 4000)
    for share in ((ids[0] == USERS).mean(), (ids[1] == ITEMS).mean(), (negatives == ITEMS).mean()):
        assert share == pytest.approx(SHARE, abs=0.03)
    together = ((ids[0] == USERS) & (ids[1] == ITEMS)).mean()
    assert together == pytest.approx(SHARE**2, abs=0.02)


def test_the_same_ids_are_replaced_on_any_number_of_ranks() -> None:
    ids, negatives = dropped(0, 4000)
    parts = [dropped(first, last) for first, last in ((0, 1001), (1001, 4000))]
    assert np.array_equal(np.concatenate([part[0] for part in parts], axis=1), ids)
    assert np.array_equal(np.concatenate([part[1] for part in parts]), negatives)


def test_entries_of_stored_lists_are_replaced_as_often() -> None:
    schema = replace(SCHEMA, categorical=(*SCHEMA.categorical, HISTORY_COLUMN))
    lengths = np.arange(4000) % 5
    values = np.arange(lengths.sum()) % ITEMS
    rows = Rows(np.zeros((2, 4000), np.int64), [(values, lengths)], np.empty((4000, 0)), np.ones(4000))
    DropIds(schema, SHARE)(rows, Draws(epoch_key(5, 1), 2, 100))
    [(after, same)] = rows.sequences
    assert same is lengths
    assert ((after == values) | (after == ITEMS)).all()
    assert (after == ITEMS).mean() == pytest.approx(SHARE, abs=0.03)
