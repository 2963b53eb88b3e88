"""Random numbers of rows, and the items drawn with them."""

from __future__ import annotations

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.history import History
from data_pipeline.streaming.draws import Draws, epoch_key
from data_pipeline.streaming.negatives import RowNegatives
from tests.unit.data.test_candidate_sampler import ITEMS, history_of, lists

DRAWS = Draws(epoch_key(3, 1), 4, 1000)


def test_numbers_equal_those_of_splitmix64() -> None:
    """The first numbers of the published generator (Vigna, prng.di.unimi.it/splitmix64.c) from seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    found = Draws(1234567, 0, 1).of_rows(4, 1).ravel()
    np.testing.assert_array_equal(found, [(number >> 11) / 2**53 for number in published])


def test_a_row_has_the_same_numbers_in_every_batch() -> None:
    whole = DRAWS.of_rows(50, 3)
    for first, rows in ((0, 7), (7, 13), (20, 30)):
        part = Draws(DRAWS.key, 9, 1000 + first).of_rows(rows, 3)
        np.testing.assert_array_equal(part, whole[first : first + rows])
    np.testing.assert_array_equal(DRAWS.of_cells(np.array([4, 149, 0]), 3), whole.ravel()[[4, 149, 0]])


def test_numbers_are_uniform_and_streams_steps_seeds_and_epochs_differ() -> None:
    numbers = DRAWS.of_rows(100_000, 2)
    counts = np.histogram(numbers, 100, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 150  # chi-squared with 99 degrees of freedom: p = 0.0007
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.02
    others = [DRAWS.stream(0), DRAWS.stream(1), DRAWS.stream(0).stream(1), DRAWS.stream(1).stream(0)]
    others += [Draws(epoch_key(*key), 4, 1000) for key in ((3, 2), (4, 1))]
    drawn = np.stack([draws.of_rows(1000, 1).ravel() for draws in (DRAWS, *others)])
    assert np.abs(np.corrcoef(drawn) - np.eye(len(drawn))).max() < 0.15
    steps = [Draws(DRAWS.key, step, 0).of_step(5).tolist() for step in (0, 1, 1)]
    assert steps[0] != steps[1] == steps[2]


@pytest.mark.parametrize("pool", [None, np.arange(0, ITEMS, 3), np.array([7])])
@pytest.mark.parametrize("weights", [None, np.arange(ITEMS) % 5])
def test_drawn_items_are_never_in_the_history(weights: np.ndarray | None, pool: np.ndarray | None) -> None:
    had = lists()
    users = np.repeat(np.arange(20), 50)
    drawn = RowNegatives(history_of(had), ITEMS, weights).draw(users, 4, DRAWS, pool=pool)
    assert drawn.shape == (1000, 4)
    for user, items in zip(users, drawn, strict=True):
        assert not np.isin(items, had[user]).any()
    if weights is not None:
        assert (weights[drawn] > 0).all() or pool is not None


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], [5.0, 1.0, 2.0, 7.0, 3.0, 1.0]])
@pytest.mark.parametrize("had", [[0, 3], [2], [4, 5], [0, 1, 2, 4, 5]])
def test_draws_follow_the_weights_of_the_remaining_items(weights: list[float], had: list[int]) -> None:
    given = None if len(set(weights)) == 1 else np.array(weights)
    drawn = RowNegatives(history_of([np.array(had)]), 6, given).draw(np.zeros(30_000, int), 1, DRAWS)
    expected = np.array(weights)
    expected[had] = 0
    found = np.bincount(drawn.ravel(), minlength=6) / len(drawn)
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.01)


def test_negatives_of_a_row_are_the_same_in_every_batch() -> None:
    users = np.arange(20).repeat(5)
    for weights in (None, np.arange(ITEMS) + 1.0):
        negatives = RowNegatives(history_of(lists()), ITEMS, weights)
        whole = negatives.draw(users, 3, DRAWS)
        for rows in (slice(0, 33), slice(33, 34), slice(34, 100)):
            part = negatives.draw(users[rows], 3, Draws(DRAWS.key, 8, 1000 + rows.start))
            np.testing.assert_array_equal(part, whole[rows])


@pytest.mark.parametrize("weights", [None, np.ones(10_000)])
def test_a_user_with_all_items_but_one_gets_that_one(weights: np.ndarray | None) -> None:
    had = [np.delete(np.arange(10_000), 4321)]
    drawn = RowNegatives(history_of(had), 10_000, weights).draw(np.zeros(3, int), 2, DRAWS)
    assert (drawn == 4321).all()


@pytest.mark.parametrize("weights", [None, np.ones(5)])
def test_a_user_with_all_items_is_refused(weights: np.ndarray | None) -> None:
    negatives = RowNegatives(history_of([np.arange(2), np.arange(5)]), 5, weights)
    with pytest.raises(DataError, match=r"user 1 .* all 5 items"):
        negatives.draw(np.array([0, 1]), 1, DRAWS)


def test_users_without_items_may_get_any_item() -> None:
    drawn = RowNegatives(History(np.zeros(3, int), np.empty(0, int)), 4).draw(np.array([0, 1]).repeat(50), 1, DRAWS)
    assert set(drawn.ravel()) == {0, 1, 2, 3}
