from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score, roc_auc_score
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from cove_dist.evaluation import UserRanking
from tests.unit.evaluation.samples import add_states, cut, samples

KS = (1, 3, 5, 20)


def computed(*batches: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> dict[str, float]:
    metric = UserRanking(ndcg_at=KS, hit_rate_at=KS)
    for batch in batches:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.compute().items()}


def one_user_at_a_time(logits: torch.Tensor, labels: torch.Tensor, users: torch.Tensor) -> dict[str, float]:
    """The definitions, with a loop over users."""
    totals: dict[str, list[float]] = {f"{name}@{k}": [] for name in ("ndcg", "hr") for k in KS}
    auc, weights = [], []
    for user in users.unique():
        rows = users == user
        scores, relevant = logits[rows].tolist(), labels[rows].tolist()
        if 0 < sum(relevant) < len(relevant):
            auc.append(roc_auc_score(relevant, scores))
            weights.append(len(relevant))
        if sum(relevant) == 0:
            continue
        ranked = [relevant[i] for i in sorted(range(len(scores)), key=lambda i: -scores[i])]  # stable
        for k in KS:
            gain = sum(label / math.log2(i + 2) for i, label in enumerate(ranked[:k]))
            ideal = sum(1 / math.log2(i + 2) for i in range(min(k, int(sum(relevant)))))
            totals[f"ndcg@{k}"].append(gain / ideal)
            totals[f"hr@{k}"].append(float(any(ranked[:k])))
    counted = len(totals["hr@1"])
    means = {name: sum(values) / counted if counted else math.nan for name, values in totals.items()}
    pairs = zip(weights, auc, strict=True)
    gauc = sum(weight * value for weight, value in pairs) / sum(weights) if auc else math.nan
    return {"gauc": gauc, **means, "users": counted, "gauc_users": len(auc)}


@given(samples())
@settings(max_examples=100, deadline=None)
def test_equals_the_definitions(sample: tuple) -> None:
    assert computed(sample) == pytest.approx(one_user_at_a_time(*sample), abs=1e-12, nan_ok=True)


@given(samples(tied=False))
@settings(max_examples=30, deadline=None)
def test_equals_scikit_learn_and_torchmetrics(sample: tuple) -> None:
    logits, labels, users = sample
    result = computed(sample)
    with_positive = [users == user for user in users.unique() if labels[users == user].any()]
    assert result["users"] == len(with_positive)
    if not with_positive:
        return
    long_enough = [rows for rows in with_positive if rows.sum() > 1]  # scikit-learn refuses one document
    for k in KS:
        scores = [ndcg_score(labels[None, rows], logits[None, rows], k=k) for rows in long_enough]
        expected = (sum(scores) + len(with_positive) - len(long_enough)) / len(with_positive)
        assert result[f"ndcg@{k}"] == pytest.approx(expected, abs=1e-9)
        arguments = (logits, labels.long(), users)
        ndcg = RetrievalNormalizedDCG(empty_target_action="skip", top_k=k)(*arguments[:2], indexes=users)
        hit_rate = RetrievalHitRate(empty_target_action="skip", top_k=k)(*arguments[:2], indexes=users)
        assert result[f"ndcg@{k}"] == pytest.approx(ndcg.item(), abs=1e-6)
        assert result[f"hr@{k}"] == pytest.approx(hit_rate.item(), abs=1e-6)


@given(samples(), st.lists(st.integers(0, 100), max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=30, deadline=None)
def test_batches_and_ranks_of_whole_users_add_up(sample: tuple, points: list[int], random) -> None:
    """Rows of different users may be mixed within a batch, as long as a user's own order stays."""
    logits, labels, users = sample
    order = list(users.unique().tolist())
    random.shuffle(order)
    batches = []
    for part in cut(len(order), points):
        rows = torch.isin(users, torch.tensor(order[part], dtype=torch.int64))
        mixed = sorted(torch.nonzero(rows).flatten().tolist(), key=lambda row: int(users[row]) * 7919 % 13)
        index = torch.tensor(mixed, dtype=torch.int64)
        batches.append((logits[index], labels[index], users[index]))
    expected = computed(sample)
    assert computed(*batches) == pytest.approx(expected, abs=1e-12, nan_ok=True)

    total = UserRanking(KS, KS)
    for batch in batches:
        rank = UserRanking(KS, KS)
        rank.update(*batch)
        add_states(total, rank)
    total.update(logits[:0], labels[:0], users[:0])
    result = {name: value.item() for name, value in total.compute().items()}
    assert result == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_no_user_counts() -> None:
    result = computed((torch.randn(4), torch.zeros(4), torch.tensor([1, 1, 2, 2])))
    assert all(math.isnan(result[name]) for name in ("gauc", "ndcg@1", "hr@5"))
    assert result["users"] == result["gauc_users"] == 0


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"ndcg_at = \[0\]"):
        UserRanking(ndcg_at=[0])
    with pytest.raises(ValueError, match=r"hit_rate_at = \[5, -1\]"):
        UserRanking(hit_rate_at=[5, -1])
    with pytest.raises(ValueError, match=r"users \[2\]"):
        UserRanking().update(torch.zeros(3), torch.zeros(3), torch.zeros(2))
    with pytest.raises(FloatingPointError, match="1 of 3 logits"):
        UserRanking().update(torch.tensor([0.0, math.nan, 0.0]), torch.zeros(3), torch.zeros(3))


def test_metrics_may_be_left_out() -> None:
    metric = UserRanking(ndcg_at=(), hit_rate_at=())
    metric.update(torch.tensor([1.0, 0.0]), torch.tensor([1, 0]), torch.tensor([3, 3]))
    assert {name: value.item() for name, value in metric.compute().items()} == {"gauc": 1, "users": 1, "gauc_users": 1}
