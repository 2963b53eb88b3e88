"""Ranking metrics and the search for the best items, against plain Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.evaluation.search import best_items, merge, top_scores
from cove_dist.evaluation.top_k import Coverage, TopK

USERS, ITEMS, DEPTH = 40, 57, 12


def plain(relevant: list[bool], positives: int, k: int) -> dict[str, float]:
    ranks = [rank for rank, hit in enumerate(relevant[:k], start=1) if hit]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(positives, k) + 1))
    return {
        f"ndcg@{k}": sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        f"mrr@{k}": 1 / ranks[0] if ranks else 0.0,
        f"hr@{k}": float(bool(ranks)),
        f"recall@{k}": len(ranks) / positives,
    }


def test_equals_plain_python() -> None:
    rng = np.random.default_rng(0)
    relevant = rng.random((USERS, DEPTH)) < 0.15
    positives = np.maximum(relevant.sum(axis=1) + rng.integers(0, 3, USERS), 1)
    metric = TopK(ndcg_at=(1, 5, 12), hit_rate_at=(1, 5, 12))
    for part in (slice(0, 13), slice(13, 13), slice(13, None)):
        metric.update(torch.tensor(relevant[part]), torch.tensor(positives[part]))
    found = metric.compute()
    assert found.pop("users") == USERS
    for k in (1, 5, 12):
        rows = [plain(list(row), int(count), k) for row, count in zip(relevant, positives, strict=True)]
        for name in rows[0]:
            assert float(found.pop(name)) == pytest.approx(np.mean([row[name] for row in rows]), abs=1e-12)
    assert not found


def test_a_user_without_positives_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        TopK().update(torch.zeros(2, 10, dtype=torch.bool), torch.tensor([1, 0]))


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
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(levels, (users, 64 * (k + more)), generator=generator).float()  # with many ties
    scores[torch.rand(scores.shape, generator=generator) < 0.5] = -torch.inf
    top, at = top_scores(scores, k)
    assert torch.equal(top, scores.topk(k).values)
    assert torch.equal(scores.gather(1, at), top)
    assert all(len(row.unique()) == k for row in at)


def test_short_lists_end_in_minus_one() -> None:
    scores, ids = best_items(lambda part: part.T, torch.tensor([[1.0], [2.0]]), 0, 1, 3, (torch.tensor([0]),) * 2)
    assert ids.tolist() == [[1, -1, -1]]
    assert scores.tolist() == [[2.0, -torch.inf, -torch.inf]]


def test_of_equal_scores_the_lower_id_is_first() -> None:
    scores, ids = merge(torch.tensor([[1.0, 2.0, 1.0, 1.0]]), torch.tensor([[9, 4, 3, 5]]), 3)
    assert ids.tolist() == [[4, 3, 5]]
    assert scores.tolist() == [[2.0, 1.0, 1.0]]
