from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from cove_dist.evaluation import UserRanking
from tests.unit.evaluation.samples import cut, reduced, samples
from tests.unit.evaluation.ties import auc_of_pairs, expected, mind_mrr

KS = (1, 3, 5, 20)


def computed(*batches: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> dict[str, float]:
    metric = UserRanking(ndcg_at=KS, hit_rate_at=KS)
    for batch in batches:
        metric.update(*batch)
    return {name: value.item() for name, value in metric.compute().items()}


def one_user_at_a_time(logits: torch.Tensor, labels: torch.Tensor, users: torch.Tensor) -> dict[str, float]:
    """The definitions, with a loop over users; ties by their expected values."""
    totals: dict[str, list[float]] = {f"{name}@{k}": [] for name in ("ndcg", "hr") for k in KS}
    totals |= {"mrr": [], "mind_mrr": []}
    auc, weights = [], []
    for user in users.unique():
        rows = users == user
        scores, relevant = logits[rows].tolist(), labels[rows].tolist()
        if 0 < sum(relevant) < len(relevant):
            auc.append(auc_of_pairs(scores, relevant))
            weights.append(len(relevant))
        if sum(relevant) == 0:
            continue
        whole = expected(scores, [label == 1 for label in relevant], int(sum(relevant)), len(scores))
        totals["mrr"].append(whole["mrr"])
        totals["mind_mrr"].append(mind_mrr(scores, relevant))
        for k in KS:
            plain = expected(scores, [label == 1 for label in relevant], int(sum(relevant)), k)
            for name in ("ndcg", "hr"):
                totals[f"{name}@{k}"].append(plain[name])
    counted = len(totals["hr@1"])
    means = {name: sum(values) / counted if counted else math.nan for name, values in totals.items()}
    pairs = zip(weights, auc, strict=True)
    gauc = sum(weight * value for weight, value in pairs) / sum(weights) if auc else math.nan
    mean_auc = sum(auc) / len(auc) if auc else math.nan
    return {"gauc": gauc, "mean_auc": mean_auc, **means, "users": counted, "gauc_users": len(auc)}


@given(samples())
def test_equals_the_definitions(sample: tuple) -> None:
    assert computed(sample) == pytest.approx(one_user_at_a_time(*sample), abs=1e-12, nan_ok=True)


@given(samples())
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
        mean = (sum(scores) + len(with_positive) - len(long_enough)) / len(with_positive)
        assert result[f"ndcg@{k}"] == pytest.approx(mean, abs=1e-9)
        if any(len(logits[rows].unique()) < rows.sum() for rows in with_positive):
            continue  # torchmetrics ranks ties as they come
        arguments = (logits, labels.long(), users)
        ndcg = RetrievalNormalizedDCG(empty_target_action="skip", top_k=k)(*arguments[:2], indexes=users)
        hit_rate = RetrievalHitRate(empty_target_action="skip", top_k=k)(*arguments[:2], indexes=users)
        assert result[f"ndcg@{k}"] == pytest.approx(ndcg.item(), abs=1e-6)
        assert result[f"hr@{k}"] == pytest.approx(hit_rate.item(), abs=1e-6)


@given(samples(), st.lists(st.integers(0, 100), max_size=3), st.randoms(use_true_random=False))
def test_batches_and_ranks_of_whole_users_add_up_in_any_order(sample: tuple, points: list[int], random) -> None:
    logits, labels, users = sample
    order = users.unique().tolist()
    random.shuffle(order)
    batches = []
    for part in cut(len(order), points):
        rows = torch.isin(users, torch.tensor(order[part], dtype=torch.int64)).nonzero().flatten().tolist()
        random.shuffle(rows)
        index = torch.tensor(rows, dtype=torch.int64)
        batches.append((logits[index], labels[index], users[index]))
    plain = computed(sample)
    assert computed(*batches) == pytest.approx(plain, abs=1e-12, nan_ok=True)

    ranks = [UserRanking(KS, KS), UserRanking(KS, KS)]
    for number, batch in enumerate(batches):
        ranks[number % 2].update(*batch)
    result = {name: value.item() for name, value in reduced(ranks).compute().items()}
    assert result == pytest.approx(plain, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("place", range(5))
def test_a_constant_model_gets_what_a_random_order_gets(place: int) -> None:
    labels = (torch.arange(5) == place).float()
    found = computed((torch.zeros(5), labels, torch.zeros(5, dtype=torch.int64)))
    discounts = [1 / math.log2(position + 1) for position in range(1, 6)]
    assert found == pytest.approx(
        {
            **{"gauc": 0.5, "mean_auc": 0.5},
            **dict.fromkeys(("mrr", "mind_mrr"), sum(1 / position for position in range(1, 6)) / 5),
            **{f"ndcg@{k}": sum(discounts[:k]) / 5 for k in KS},
            **{f"hr@{k}": min(k, 5) / 5 for k in KS},
            "users": 1,
            "gauc_users": 1,
        }
    )


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
    left = ("gauc", "mean_auc", "mrr", "mind_mrr", "users", "gauc_users")
    assert {name: value.item() for name, value in metric.compute().items()} == dict.fromkeys(left, 1)


def test_mrr_is_of_the_first_positive_and_minds_of_all() -> None:
    result = computed((torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0.0, 1, 0, 1]), torch.zeros(4).long()))
    assert result["mrr"] == pytest.approx(1 / 2)
    assert result["mind_mrr"] == pytest.approx((1 / 2 + 1 / 4) / 2)


def test_mrr_of_a_large_group_of_ties_is_that_of_a_random_order() -> None:
    """One positive in n tied rows: the harmonic number over n, for both kinds of MRR."""
    rows = 20_000
    labels = torch.zeros(rows)
    labels[777] = 1
    result = computed((torch.zeros(rows), labels, torch.zeros(rows).long()))
    harmonic = sum(1 / i for i in range(1, rows + 1)) / rows
    assert result["mrr"] == pytest.approx(harmonic, rel=1e-9)
    assert result["mind_mrr"] == pytest.approx(harmonic, rel=1e-9)
