"""Interaction histories, and candidates outside them: distinct, uniform and reproducible."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
from data_pipeline.history import History, MappedHistory, write_history
from data_pipeline.preparation.candidate_sampler import CandidateSampler

ITEMS = 50


def lists(seed: int = 0, users: int = 20) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [np.sort(rng.choice(ITEMS, size=rng.integers(0, 40), replace=False)) for _ in range(users)]


def history_of(items: list[np.ndarray]) -> History:
    return History(np.cumsum([0, *map(len, items)]), np.concatenate(items))


def test_contains_tells_membership() -> None:
    seen = lists()
    users = np.array([3, 0, 3, 19, 7])
    queried = np.random.default_rng(1).integers(ITEMS, size=(5, 30))
    expected = [[item in seen[user] for item in row] for user, row in zip(users, queried, strict=True)]
    np.testing.assert_array_equal(history_of(seen).contains(users, queried), expected)


def test_no_history_contains_a_negative_item() -> None:
    """Checked for the first user, and for users whose predecessor has the greatest item."""
    seen = [np.array([0, 3]), np.array([0]), np.array([], int), np.array([1, 3])]
    none = np.array([[-1, 0, -2, 3], [-1, -4, 0, 3], [-1, 0, -3, -1], [-1, 3, -2, -4]])
    expected = [[False, True, False, True], [False, False, True, False], [False] * 4, [False, True, False, False]]
    assert history_of(seen).contains(np.arange(4), none).tolist() == expected


def test_drawn_items_are_never_in_the_history() -> None:
    seen, more = lists(), lists(1, users=10)
    sampler = CandidateSampler([history_of(seen), history_of(more)], ITEMS)
    users = np.repeat(np.arange(20), 50)
    drawn = sampler.draw(users, 4, np.random.default_rng(0))
    assert drawn.shape == (1000, 4)
    for user, items in zip(users, drawn, strict=True):
        assert not np.isin(items, seen[user]).any()
        assert user >= 10 or not np.isin(items, more[user]).any()


def test_a_user_with_all_items_but_two_gets_these_two() -> None:
    seen = [np.delete(np.arange(10_000), [21, 4321])]
    drawn = CandidateSampler([history_of(seen)], 10_000).draw(np.zeros(3, int), 2, np.random.default_rng(0))
    assert (np.sort(drawn, axis=1) == [21, 4321]).all()


def test_a_user_with_all_items_is_refused() -> None:
    with pytest.raises(DataError, match=r"user 0 .* has 0 of the 5 items outside .*saturated_users"):
        CandidateSampler([history_of([np.arange(5)])], 5).draw(np.zeros(1, int), 1, np.random.default_rng(0))


def test_distinct_draws_are_all_remaining_items_where_that_many_are_requested() -> None:
    seen = lists()
    left = min(ITEMS - len(items) for items in seen)
    drawn = CandidateSampler([history_of(seen)], ITEMS).draw(np.arange(20), left, np.random.default_rng(0))
    for user, items in enumerate(drawn):
        assert len(set(items)) == left
        assert not np.isin(items, seen[user]).any()


def test_the_same_seed_draws_the_same_items() -> None:
    sampler = CandidateSampler([history_of(lists())], ITEMS)
    first, again, other = (sampler.draw(np.arange(20), 3, np.random.default_rng([7, s])) for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_histories_are_pickled_as_their_path(tmp_path: Path) -> None:
    seen = lists(users=300)
    history = history_of(seen)
    users, items = history.of(np.arange(300))
    parts = zip(np.array_split(users, 7), np.array_split(items, 7), strict=True)
    write_history(parts, 300, len(items), tmp_path / "history" / "train")
    loaded = pickle.loads(pickle.dumps(MappedHistory(tmp_path / "history" / "train")))
    np.testing.assert_array_equal(loaded.offsets, history.offsets)
    np.testing.assert_array_equal(loaded.items, history.items)
    assert len(pickle.dumps(loaded)) < 1000


def test_writing_a_part_needs_memory_for_its_own_users_only(tmp_path: Path) -> None:
    peaks = []

    def parts() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first in range(0, 1_000_000, 250_000):
            tracemalloc.reset_peak()
            before, _ = tracemalloc.get_traced_memory()
            yield np.repeat([first, first + 1], [2, 1]), np.array([4, 7, 4])
            peaks.append(tracemalloc.get_traced_memory()[1] - before)

    tracemalloc.start()
    try:
        write_history(parts(), 1_000_000, 12, tmp_path / "history" / "train")
    finally:
        tracemalloc.stop()
    assert max(peaks) < 100_000  # a count of all users takes 8,000,000 bytes
    assert np.flatnonzero(np.diff(np.load(tmp_path / "history/train/offsets.npy"))).tolist() == [
        *(0, 1, 250_000, 250_001, 500_000, 500_001, 750_000, 750_001)
    ]


def test_a_user_is_named_by_the_original_id(tmp_path: Path) -> None:
    path = tmp_path / "history" / "train"
    write_history([(np.zeros(3, int), np.arange(3))], 1, 3, path)
    (tmp_path / "ids").mkdir()
    pq.write_table(pa.table({"id": [0], "original_id": ["u20"]}), tmp_path / "ids" / "user_id.parquet")
    with pytest.raises(DataError, match=r"user 'u20' has 0 of the 3 items outside the interaction history"):
        CandidateSampler([MappedHistory(path)], 3).draw(np.zeros(1, int), 1, np.random.default_rng(0))
