"""Metrics that a configuration adds, against plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss

from cove_dist.config import EvaluationConfig
from cove_dist.errors import ConfigError
from cove_dist.evaluation import CTRMetrics, ListCompletion
from cove_dist.evaluation.checks import CheckedMetric
from cove_dist.evaluation.further import Brier, Precision
from cove_dist.evaluation.own import ListMetric
from cove_dist.evaluation.positions import Positions

KS = (1, 3, 10)


def test_a_metric_over_samples_is_computed_with_those_of_the_task() -> None:
    rng = np.random.default_rng(0)
    logits, labels, users = rng.normal(size=90), rng.integers(0, 2, 90), np.arange(90) // 9
    metrics = CTRMetrics(own=[Brier])
    for part in (slice(0, 40), slice(40, 40), slice(40, None)):
        metrics.update(*(torch.from_numpy(values[part]) for values in (logits, labels, users)))
    assert metrics.compute()["brier"] == pytest.approx(brier_score_loss(labels, 1 / (1 + np.exp(-logits))), abs=1e-12)


def test_precision_of_lists_with_and_without_ties() -> None:
    rng = np.random.default_rng(1)
    relevant = rng.random((25, 10)) < 0.3
    metric = Precision((1,), KS)
    metric.update(Positions.of_mask(torch.tensor(relevant), 10), torch.full((25,), 10))
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == pytest.approx({f"precision@{k}": relevant[:, :k].sum(axis=1).mean() / k for k in KS}, abs=1e-12)
    metric.reset()
    tied = Positions(torch.tensor([0]), torch.tensor([2]), torch.tensor([4]), 1, 10)  # at 3, 4, 5 or 6
    metric.update(tied, torch.tensor([1]))
    assert [value.item() for value in metric.compute().values()] == pytest.approx([0, 1 / 4 / 3, 1 / 10])


def test_a_metric_of_lists_sees_the_distinct_targets_of_sequences() -> None:
    metrics = ListCompletion((3,), (3,), unseen=50, own=[Precision((3,), (3,))])
    ranked = torch.tensor([[4, 7, 9], [1, 2, 3]])
    metrics.update(ranked, torch.tensor([[9, 4, 9], [8, -1, -1]]))
    assert metrics.compute()["precision@3"].item() == pytest.approx((2 / 3 + 0) / 2)
    metrics.reset()
    metrics.update(ranked[1:], torch.tensor([[2]]))
    assert metrics.compute()["precision@3"].item() == pytest.approx(1 / 3)


class Nameless(ListMetric):
    def values(self, positions: Positions, positives: torch.Tensor, k: int) -> torch.Tensor:
        return positions.found(k)


def test_a_metric_of_another_task_or_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVE_ALLOW_TARGETS", "tests")

    def own(target: str, base: type) -> object:
        return EvaluationConfig((1,), (1,), {"mine": {"_target_": target}}).own(base)

    with pytest.raises(ConfigError, match=r"metrics\.mine\._target_ = .*Precision: does not fit .*CheckedMetric"):
        own("cove_dist.evaluation.further.Precision", CheckedMetric)
    with pytest.raises(ConfigError, match=r"Nameless: declares no name and direction; decorate"):
        own(f"{__name__}.Nameless", ListMetric)
