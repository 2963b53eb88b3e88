from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from torchmetrics.classification import BinaryAUROC

from cove_dist.evaluation import BinnedAUC, LogLoss
from tests.unit.evaluation.samples import add_states, cut, samples


def computed(metric: BinnedAUC | LogLoss, *batches: tuple[torch.Tensor, torch.Tensor]):
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


@given(samples())
@settings(max_examples=50, deadline=None)
def test_auc_is_exact_where_bins_part_unequal_scores(sample: tuple) -> None:
    logits, labels, _ = sample
    assume(0 < labels.sum() < len(labels))
    result = computed(BinnedAUC(), (logits, labels))
    assert result.auc.item() == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    assert result.auc.item() == pytest.approx(BinaryAUROC(thresholds=None)(logits, labels.long()).item(), abs=1e-6)
    assert result.samples == len(labels)


@given(samples(), st.integers(1, 40))
@settings(max_examples=100, deadline=None)
def test_auc_error_stays_within_the_bound(sample: tuple, bins: int) -> None:
    logits, labels, _ = sample
    assume(0 < labels.sum() < len(labels))
    result = computed(BinnedAUC(bins=bins, limit=1.5), (logits, labels))
    assert abs(result.auc.item() - roc_auc_score(labels, logits)) <= result.error_bound.item() + 1e-12


def test_auc_error_is_small_on_many_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(20_000, generator=generator) < 0.3).float()
    logits = torch.randn(20_000, generator=generator) + labels
    result = computed(BinnedAUC(), (logits, labels))
    assert result.error_bound < 1e-4
    assert result.auc.item() == pytest.approx(roc_auc_score(labels, logits), abs=1e-5)


def test_logits_beyond_the_limit_fall_in_the_outermost_bins() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    assert computed(BinnedAUC(), (torch.tensor([-1e30, -20.0, 20.0, 1e30]), labels)).auc == 1
    assert computed(BinnedAUC(), (torch.tensor([16.0, 1e30, 20.0, 16.0]), labels)).auc == 0.5


@given(samples())
@settings(max_examples=50, deadline=None)
def test_log_loss(sample: tuple) -> None:
    logits, labels, _ = sample
    expected = log_loss(labels, torch.sigmoid(logits.double()), labels=[0, 1])
    assert computed(LogLoss(), (logits, labels)).item() == pytest.approx(expected, abs=1e-12)


def test_log_loss_of_large_logits_does_not_overflow() -> None:
    assert computed(LogLoss(), (torch.tensor([1000.0, -1000.0]), torch.tensor([0, 0]))).item() == 500


@pytest.mark.parametrize("kind", [BinnedAUC, LogLoss])
@given(sample=samples(), points=st.lists(st.integers(0, 100), max_size=4))
@settings(max_examples=20, deadline=None)
def test_batches_and_ranks_add_up(kind: type, sample: tuple, points: list[int]) -> None:
    logits, labels, _ = sample
    whole = computed(kind(), (logits, labels))
    parts = cut(len(logits), points)
    assert torch.allclose(
        torch.as_tensor(computed(kind(), *((logits[part], labels[part]) for part in parts))),
        torch.as_tensor(whole),
        rtol=1e-12,
        equal_nan=True,
    )
    total = kind()
    total.update(logits[:0], labels[:0])
    for part in parts:
        rank = kind()
        rank.update(logits[part], labels[part])
        add_states(total, rank)
    assert torch.allclose(torch.as_tensor(total.compute()), torch.as_tensor(whole), rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc(label: int) -> None:
    result = computed(BinnedAUC(), (torch.randn(5), torch.full((5,), label)))
    assert math.isnan(result.auc)
    assert math.isnan(result.error_bound)


def test_no_samples_have_no_log_loss() -> None:
    assert math.isnan(computed(LogLoss(), (torch.empty(0), torch.empty(0))))


@pytest.mark.parametrize("kind", [BinnedAUC, LogLoss])
def test_bad_input(kind: type) -> None:
    metric = kind()
    with pytest.raises(FloatingPointError, match="2 of 3 logits are not finite"):
        metric.update(torch.tensor([0.0, math.nan, math.inf]), torch.zeros(3))
    with pytest.raises(ValueError, match=r"1 of 3 labels are neither 0 nor 1, the first 0\.5"):
        metric.update(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match=r"logits \[3\] and labels \[2\]"):
        metric.update(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"logits \[3, 1\]"):
        metric.update(torch.zeros(3, 1), torch.zeros(3, 1))
