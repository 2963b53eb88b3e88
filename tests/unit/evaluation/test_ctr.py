from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from cove_dist.evaluation import CTRMetrics, UserRanking
from tests.unit.evaluation.samples import cut, samples


def computed(metrics: CTRMetrics, sample: tuple, points: list[int]) -> dict[str, float]:
    for part in cut(len(sample[0]), points):
        metrics.update(*(column[part] for column in sample))
    return metrics.compute()


@given(samples(), st.lists(st.integers(0, 100), max_size=10))
def test_batches_may_cut_users_anywhere(sample: tuple, points: list[int]) -> None:
    logits, labels, _ = sample
    result = computed(CTRMetrics(), sample, points)
    ranked = ("gauc", "mean_auc", "mrr", "mind_mrr", "ndcg@1", "ndcg@5", "ndcg@10", "hr@5")
    assert list(result) == ["auc", "auc_error", "logloss", *ranked, "users", "samples"]
    assert all(isinstance(value, (float, int)) for value in result.values())
    both = 0 < labels.sum() < len(labels)
    assert result["auc"] == pytest.approx(roc_auc_score(labels, logits) if both else math.nan, nan_ok=True)
    assert result["logloss"] == pytest.approx(log_loss(labels, torch.sigmoid(logits.double()), labels=[0, 1]))
    assert result["samples"] == len(labels)
    ranking = UserRanking()
    ranking.update(*sample)
    for name, value in ranking.compute().items():
        if name != "gauc_users":
            assert result[name] == pytest.approx(value.item(), abs=1e-12, nan_ok=True)


def test_computes_again_and_after_reset() -> None:
    sample = (torch.randn(30), (torch.arange(30) % 3 == 0).float(), torch.arange(30) // 7)
    metrics = CTRMetrics(ndcg_at=(2,), hit_rate_at=(1, 3))
    first = computed(metrics, sample, [5, 11])
    assert set(first) >= {"ndcg@2", "hr@1", "hr@3"}
    assert metrics.compute() == first
    with pytest.raises(ValueError, match="after it was flushed"):
        metrics.update(torch.zeros(1), torch.zeros(1), sample[2][-1:])
    metrics.reset()
    assert computed(metrics, sample, [20]) == pytest.approx(first)


def test_bad_input() -> None:
    metrics = CTRMetrics()
    with pytest.raises(FloatingPointError, match="1 of 2 logits are not finite"):
        metrics.update(torch.tensor([math.inf, 0.0]), torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="sort the rows by group"):
        metrics.update(torch.zeros(2), torch.zeros(2), torch.tensor([2, 1]))
    with pytest.raises(ValueError, match=r"users and requests \[\[1\], \[1\]\]: must be \[B\]"):
        metrics.update(torch.zeros(2), torch.zeros(2), torch.tensor([2]))


@given(samples(), st.lists(st.integers(0, 100), max_size=10), st.integers(1, 4), st.randoms(use_true_random=False))
def test_requests_are_ranked_wherever_their_users_rows_are_cut(sample: tuple, points: list, parts: int, random) -> None:
    """Requests in any order within a user, not even adjacent: their metrics are those of users of the same rows."""
    logits, labels, users = sample
    drawn = torch.tensor([random.randrange(parts) for _ in users])
    requests = 1000 - (users * parts + drawn)  # falling where users rise
    metrics = CTRMetrics(group_by="request_id")
    for part in cut(len(users), points):
        metrics.update(logits[part], labels[part], users[part], requests[part])
    result = metrics.compute()
    ranking = UserRanking()
    ranking.update(logits, labels, requests)
    counted = {name: value.item() for name, value in ranking.compute().items() if name != "gauc_users"}
    assert result["requests"] == counted.pop("users")
    assert {name: result[name] for name in counted} == pytest.approx(counted, abs=1e-12, nan_ok=True)
    assert "users" not in result


def test_a_request_of_several_users_and_requests_that_are_not_given_are_refused() -> None:
    metrics = CTRMetrics(group_by="request_id")
    rows = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.0, 1.0, 1.0]), torch.tensor([4, 5, 6])
    with pytest.raises(ValueError, match="a request has rows of several users"):
        metrics.update(*rows, torch.tensor([9, 9, 8]))
    with pytest.raises(ValueError, match=r"users and requests \[\[3\], None\]"):
        CTRMetrics(group_by="request_id").update(*rows)
