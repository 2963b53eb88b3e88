"""Scores that are not finite are refused, at once or before any value is returned."""

from __future__ import annotations

import math
from unittest.mock import patch

import pytest
import torch

from cove_dist.evaluation import BinnedAUC, LogLoss, UserRanking
from cove_dist.evaluation.checks import FiniteScores, count_not_finite
from tests.unit.evaluation.samples import reduced


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_score_among_many_is_counted(bad: float) -> None:
    scores = torch.zeros(30, 40)
    scores[17, 3] = bad
    assert count_not_finite(scores) == 1
    scores[2, 5] = -bad
    assert count_not_finite(scores) == 2


def test_large_scores_whose_sum_overflows_are_finite() -> None:
    assert count_not_finite(torch.full((100,), torch.finfo(torch.float32).max)) == 0


def test_a_bad_batch_raises_at_once_and_leaves_the_metric_as_it_was() -> None:
    metric = LogLoss()
    metric.update(torch.zeros(2), torch.zeros(2))
    with pytest.raises(FloatingPointError, match=r"1 of 3 logits are not finite .* lower learning rate"):
        metric.update(torch.tensor([0.0, math.nan, 1.0]), torch.zeros(3))
    assert metric.compute().item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", [LogLoss, BinnedAUC, UserRanking, FiniteScores])
def test_on_a_device_that_is_not_waited_for_every_rank_raises_at_compute(kind: type) -> None:
    """As on a GPU, whose tensors the check reads at compute alone."""
    ranks = [kind(), kind()]
    rows = (torch.zeros(3), torch.zeros(3), torch.zeros(3, dtype=torch.int64))
    arguments = rows[: {UserRanking: 3, FiniteScores: 1}.get(kind, 2)]
    ranks[0].update(*arguments)
    ranks[1].update(*arguments)
    ranks[1].refused += torch.tensor([2, 3, 0, 0])
    with pytest.raises(FloatingPointError, match=r"2 of 3 .* are not finite"):
        reduced(ranks).compute()


def test_bad_labels_are_counted_on_such_a_device() -> None:
    metric = LogLoss()
    metric.refused += torch.tensor([0, 3, 1, 3])
    with patch.object(metric, "_update_count", 1), pytest.raises(ValueError, match="1 of 3 labels are neither 0 nor 1"):
        metric.compute()
