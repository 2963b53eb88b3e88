"""Metrics over stored candidates: against their definition, whatever the batches and the rows held before an update."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.distributed import DistributedContext
from cove_dist.evaluation.frequency import GROUPS
from cove_dist.tasks.cf import evaluator
from data_pipeline.batch import Batch
from data_pipeline.schema import CANDIDATES

ROWS, WIDTH, ITEMS, USERS = 37, 6, 50, 20
CONTEXT = DistributedContext(0, 1, 1, torch.device("cpu"))


def batch_of(users: torch.Tensor, candidates: torch.Tensor) -> Batch:
    lengths = torch.tensor([1, WIDTH]).repeat_interleave(len(users))
    ids = KeyedJaggedTensor(["user_id", CANDIDATES], torch.cat([users, candidates.flatten()]), lengths=lengths)
    empty = torch.empty(len(users), 0)
    return Batch(ids, empty, torch.ones(len(users)), users, candidates[:, 0], torch.ones(()))


def group_of_items() -> Any:
    group = SimpleNamespace(of=lambda items: items % len(GROUPS), statistics=[{} for _ in GROUPS])
    group.to = lambda device: group
    return group


def expected(above: np.ndarray) -> dict[str, float]:
    """Return HR@2 and NDCG@2 of positives with no ties and so many candidates above them."""
    return {"hr@2": (above < 2).mean(), "ndcg@2": np.where(above < 2, 1 / np.log2(above + 2), 0).mean()}


@pytest.mark.parametrize("at_once", [1, 10, 1000])
@pytest.mark.parametrize("batch_size", [5, 37])
def test_metrics_are_those_of_their_definition(at_once: int, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluator, "_ROWS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    users = torch.randint(USERS, (ROWS,), generator=generator).sort().values
    candidates = torch.rand(ROWS, ITEMS, generator=generator).argsort(dim=1)[:, :WIDTH]
    scores = torch.randn(USERS, ITEMS, generator=generator)
    loader = [batch_of(*rows) for rows in zip(users.split(batch_size), candidates.split(batch_size), strict=True)]
    config: Any = SimpleNamespace(ndcg_at=(2,), hit_rate_at=(2,), own=lambda kind: [])
    ranking: Any = evaluator.SampledRanking(cast(Any, loader), config, {"item": group_of_items()}, CONTEXT)
    vectors: Any = SimpleNamespace(users=lambda ids: ids, items=lambda ids: ids.unsqueeze(1), all_items=lambda: None)

    def head(users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return scores[users[:, None], items[:, :, 0]]

    found = [ranking(head, vectors) for _ in range(2)][1]  # a second evaluation starts from nothing
    of_rows = scores[users[:, None], candidates].numpy()
    above = (of_rows[:, 1:] > of_rows[:, :1]).sum(axis=1)
    assert found["rows"] == ROWS
    assert found["users"] == len(users.unique())
    for name, value in expected(above).items():
        assert found[name] == pytest.approx(value, rel=1e-12)
    for number, group in enumerate(GROUPS):
        rows = candidates[:, 0].numpy() % len(GROUPS) == number
        assert found[f"rows/item_{group}"] == rows.sum()
        for name, value in expected(above[rows]).items():
            assert found[f"{name}/item_{group}"] == pytest.approx(value, rel=1e-12)
