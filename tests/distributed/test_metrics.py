"""Metrics reduced over real gloo ranks."""

from __future__ import annotations

import pytest
import torch

from cove_dist.evaluation import CTRMetrics
from cove_dist.training.distributed import process_group
from tests.distributed.ranks import run_ranks

BATCH = 16
Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def sample() -> Sample:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(-5, 6, (200,), generator=generator) / 4
    labels = (torch.rand(200, generator=generator) < 0.4).float()
    return logits, labels, torch.arange(200) // 9


def metrics_of(rows: Sample) -> dict[str, float]:
    metrics = CTRMetrics()
    for batch in zip(*(column.split(BATCH) for column in rows), strict=True):
        metrics.update(*batch)
    return metrics.compute()


def metrics_of_rank(boundaries: list[int]) -> dict[str, float]:
    """The metrics when this rank has the users between its boundaries."""
    with process_group("cpu") as runtime:
        first, last = boundaries[runtime.rank : runtime.rank + 2]
        logits, labels, users = sample()
        rows = (users >= first) & (users < last)
        return metrics_of((logits[rows], labels[rows], users[rows]))


@pytest.mark.parametrize("boundaries", [[0, 5, 23], [0, 0, 23]], ids=["uneven", "one-rank-empty"])
def test_two_ranks_give_what_one_gives(boundaries: list[int]) -> None:
    """The ranks differ in their number of batches, and each holds an unfinished user at the end."""
    first, second = run_ranks(2, metrics_of_rank, boundaries)
    assert first == second == pytest.approx(metrics_of(sample()), abs=1e-12)
