"""The best items of users, by scoring all items and by an index, where scores tie and where they are not finite."""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.cf.faiss_retriever import FaissRetriever
from cove_dist.tasks.cf.retrieval import TopKRetriever
from data_pipeline.history import History

USERS, D = 30, 3
RETRIEVERS = [TopKRetriever, FaissRetriever]


@pytest.fixture(scope="module")
def context() -> Iterator[DistributedContext]:
    with process_group("cpu") as context:
        yield context


def history_of(items: list[np.ndarray]) -> History:
    return History(np.cumsum([0, *map(len, items)]), np.concatenate(items))


def retriever(
    kind: type, users: torch.Tensor, items: torch.Tensor, had: list[History], k: int, context: DistributedContext
) -> Any:
    head = SimpleNamespace(
        query=lambda x: x, key=lambda x: x, offset=lambda _: None, score_all=lambda users, items: users @ items.T
    )
    vectors = SimpleNamespace(users=lambda ids: users[ids], item_block=lambda: (0, items))
    return kind(head, vectors, had, USERS - 1, k, context)


@pytest.mark.parametrize("kind", RETRIEVERS)
@given(
    items=st.sampled_from([1, 3, 40, 300]),
    k=st.sampled_from([1, 4, 50]),
    levels=st.sampled_from([0, 1, 3]),
    seed=st.integers(0, 2**31),
)
def test_of_equal_scores_the_lower_item_is_listed(
    kind: type, items: int, k: int, levels: int, seed: int, context: DistributedContext
) -> None:
    """With no levels all scores are equal. Vectors of whole numbers, so that products are exact."""
    rng = np.random.default_rng(seed)
    vectors = [torch.from_numpy(rng.integers(-levels, levels + 1, (n, D)).astype(np.float32)) for n in (USERS, items)]
    had = [[np.flatnonzero(rng.random(items) < share) for _ in range(USERS)] for share in (0.1, rng.choice([0.0, 1.0]))]
    asked = np.flatnonzero(rng.random(USERS) < 0.8)
    scores, found = retriever(kind, *vectors, list(map(history_of, had)), k, context)(asked)
    whole = (vectors[0] @ vectors[1].T).numpy()
    for row, user in enumerate(asked):
        left = np.setdiff1d(np.arange(items), np.concatenate([had[0][user], had[1][user]]))
        best = left[np.argsort(-whole[user, left], kind="stable")][:k]
        assert found[row].tolist() == [*best.tolist(), *[-1] * (k - len(best))]
        assert scores[row].tolist() == [*whole[user, best].tolist(), *[-math.inf] * (k - len(best))]


@pytest.mark.parametrize("kind", RETRIEVERS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e30])
def test_scores_that_are_not_finite_are_refused(kind: type, bad: float, context: DistributedContext) -> None:
    """Of one item, which every user has and none is shown; 1e30 squared overflows."""
    users, items = torch.full((USERS, D), 1e30), torch.zeros(20, D)
    items[7, 1] = bad
    everyone_has_it = history_of([np.array([7])] * USERS)
    with pytest.raises(FloatingPointError, match="scores are not finite"):
        retriever(kind, users, items, [everyone_has_it], 3, context)(np.arange(USERS))
    items[7, 1] = 0
    retriever(kind, users, items, [everyone_has_it], 3, context)(np.arange(USERS))
