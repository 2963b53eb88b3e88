"""Ranking metrics and the search for the best items, against plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.evaluation.positions import Positions
from cove_dist.evaluation.search import TopItems, best_items, merge, merge_lists, top_scores
from cove_dist.evaluation.top_k import Coverage, TopK, UserCount
from tests.unit.evaluation.samples import cut
from tests.unit.evaluation.ties import METRICS, metrics_of_order

USERS, ITEMS, DEPTH = 40, 57, 12


def test_equals_plain_python() -> None:
    rng = np.random.default_rng(0)
    relevant = rng.random((USERS, DEPTH)) < 0.15
    positives = np.maximum(relevant.sum(axis=1) + rng.integers(0, 3, USERS), 1)
    metric = TopK(ndcg_at=(1, 5, 12), hit_rate_at=(1, 5, 12))
    for part in (slice(0, 13), slice(13, 13), slice(13, None)):
        metric.update(Positions.of_mask(torch.tensor(relevant[part]), DEPTH), torch.tensor(positives[part]))
    found = metric.compute()
    assert found.pop("lists") == USERS
    for k in (1, 5, 12):
        rows = [metrics_of_order(row, int(count), k) for row, count in zip(relevant, positives, strict=True)]
        for name in METRICS:
            assert float(found.pop(f"{name}@{k}")) == pytest.approx(np.mean([row[name] for row in rows]), abs=1e-12)
    assert not found


def test_a_list_without_positives_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        TopK().update(Positions.of_mask(torch.zeros(2, 10, dtype=torch.bool), 10), torch.tensor([1, 0]))


@given(st.lists(st.integers(0, 9), max_size=40).map(sorted), st.lists(st.integers(0, 40), max_size=6))
def test_users_are_counted_once_each(users: list[int], points: list[int]) -> None:
    metric = UserCount()
    for part in cut(len(users), points):
        metric.update(torch.tensor(users[part], dtype=torch.int64))
    assert metric.compute() == len(set(users))
    metric.reset()
    metric.update(torch.tensor([4]))
    assert metric.compute() == 1


def test_users_of_rows_that_are_not_sorted_are_refused() -> None:
    metric = UserCount()
    metric.update(torch.tensor([3, 5]))
    metric.update(torch.tensor([3]))
    with pytest.raises(ValueError, match="sort the rows by user"):
        metric.compute()


def test_coverage_counts_items_that_anyone_is_shown() -> None:
    metric = Coverage(10, at=(1, 2))
    metric.update(torch.tensor([[3, 5, 1], [3, 4, -1]]))
    metric.update(torch.tensor([[7, -1, -1]]))
    assert {name: float(value) for name, value in metric.compute().items()} == {"coverage@1": 0.2, "coverage@2": 0.4}


@pytest.mark.parametrize(("chunk", "block"), [(1 << 22, 64), (USERS * 7, 3), (USERS * 20, 2), (1, 1)])
def test_the_best_items_are_those_of_a_full_sort(monkeypatch: pytest.MonkeyPatch, chunk: int, block: int) -> None:
    monkeypatch.setattr("cove_dist.evaluation.search._SCORES", chunk)
    monkeypatch.setattr("cove_dist.evaluation.search._BLOCK", block)
    generator = torch.Generator().manual_seed(0)
    users, items = torch.randn(USERS, 4, generator=generator), torch.randn(ITEMS, 4, generator=generator)
    places, had = (torch.rand(USERS, ITEMS, generator=generator) < 0.3).nonzero().T
    beyond = torch.tensor([[0, 1], [3, 200]])  # items that other ranks hold
    places, had = torch.cat([places, beyond[0]]), torch.cat([had + 100, beyond[1]])
    scores, ids = best_items(lambda part: users @ part.T, items, 100, USERS, DEPTH, (places, had))
    whole = users @ items.T
    for user in range(USERS):
        own = set(had[places == user].tolist())
        expected = sorted((i for i in range(ITEMS) if i + 100 not in own), key=lambda i: -whole[user, i])[:DEPTH]
        assert ids[user].tolist() == [i + 100 for i in expected]
        torch.testing.assert_close(scores[user], whole[user, expected])


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2), st.integers(1, 5), st.integers(0, 2**31))
def test_the_best_of_blocks_are_the_best_of_all(users: int, k: int, more: int, levels: int, seed: int) -> None:
    """Of equal scores the lower index: as the first k of a stable sort."""
    generator = torch.Generator().manual_seed(seed)
    items = 64 * (k + more) + seed % 70
    scores = torch.randint(levels, (users, items), generator=generator).float()  # with many ties
    scores[torch.rand(scores.shape, generator=generator) < 0.5] = -torch.inf
    top, at = top_scores(scores, k)
    expected = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(top, expected.values[:, :k])
    listed = top > -torch.inf
    assert torch.equal(at[listed], expected.indices[:, :k][listed])


@given(
    st.integers(1, 4),
    st.integers(1, 30),
    st.integers(1, 12),
    st.integers(1, 4),
    st.integers(1, 9),
    st.integers(0, 2**31),
)
def test_of_equal_scores_the_lower_id_is_listed_whatever_the_chunks_and_the_ranks(
    users: int, items: int, k: int, levels: int, chunk: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (users, items), generator=generator).float()
    scores[torch.rand(scores.shape, generator=generator) < 0.2] = -torch.inf  # what is left out
    order = scores.sort(dim=1, descending=True, stable=True)
    half = items // 2
    ranks = []
    for start, stop in ((0, half), (half, items)):
        found = TopItems.none(users, k, scores)
        for first in range(start, stop, chunk):
            found = found.with_chunk(scores[:, first : min(first + chunk, stop)], first)
        ranks.append(found)
    merged = merge_lists(ranks, k)
    for user in range(users):
        left = int((scores[user] > -torch.inf).sum())
        listed = order.indices[user, : min(k, left)].tolist()
        assert merged.ids[user].tolist() == listed + [-1] * (k - len(listed))
        assert merged.scores[user].tolist() == scores[user, listed].tolist() + [-math.inf] * (k - len(listed))
        last = merged.scores[user, -1]
        ties = int((scores[user] == last).sum() - (merged.scores[user] == last).sum()) if last > -math.inf else 0
        assert merged.cut_ties[user] == ties


def test_tied_lists_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Items with the vectors of others, whose scores are equal bit by bit."""
    generator = torch.Generator().manual_seed(0)
    users = torch.randint(-2, 3, (USERS, 4), generator=generator).float()
    items = torch.randint(-1, 2, (500, 4), generator=generator).float()
    none = (torch.zeros(0, dtype=torch.int64),) * 2
    expected = (users @ items.T).sort(dim=1, descending=True, stable=True).indices[:, :DEPTH]
    for scores in (1, USERS * 64, USERS * 192, 1 << 22):
        monkeypatch.setattr("cove_dist.evaluation.search._SCORES", scores)
        _, ids = best_items(lambda part: users @ part.T, items, 0, USERS, DEPTH, none)
        assert torch.equal(ids, expected)


def test_short_lists_end_in_minus_one() -> None:
    scores, ids = best_items(lambda part: part.T, torch.tensor([[1.0], [2.0]]), 0, 1, 3, (torch.tensor([0]),) * 2)
    assert ids.tolist() == [[1, -1, -1]]
    assert scores.tolist() == [[2.0, -torch.inf, -torch.inf]]


def test_of_equal_scores_the_lower_id_is_first() -> None:
    scores, ids = merge(torch.tensor([[1.0, 2.0, 1.0, 1.0]]), torch.tensor([[9, 4, 3, 5]]), 3)
    assert ids.tolist() == [[4, 3, 5]]
    assert scores.tolist() == [[2.0, 1.0, 1.0]]


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(0, 2**31))
def test_chunks_of_many_blocks_keep_what_reaches_the_lists(users: int, k: int, levels: int, seed: int) -> None:
    """With scores that rise, fall or stay from chunk to chunk, so that many blocks reach the lists so far, or none."""
    generator = torch.Generator().manual_seed(seed)
    parts = [
        torch.randint(
            levels, (users, 64 * int(torch.randint(1, 9, (), generator=generator)) + size), generator=generator
        )
        + int(torch.randint(-2, 3, (), generator=generator))
        for size in (0, 1, 63)
    ]
    found, start = TopItems.none(users, k, torch.zeros(0)), 0
    for part in parts:
        found, start = found.with_chunk(part.float(), start), start + part.shape[1]
    scores = torch.cat(parts, dim=1).float()
    expected = scores.sort(dim=1, descending=True, stable=True)
    assert torch.equal(found.ids, expected.indices[:, :k])
    assert torch.equal(found.scores, expected.values[:, :k])
    last = expected.values[:, k - 1 : k]
    assert torch.equal(found.cut_ties, (scores == last).sum(dim=1) - (found.scores == last).sum(dim=1))
