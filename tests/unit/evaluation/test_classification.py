from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from torchmetrics.classification import BinaryAUROC

from cove_dist.evaluation import BinnedAUC, LogLoss
from cove_dist.evaluation.classification import UNDEFINED
from tests.unit.evaluation.samples import cut, reduced, samples


def computed(metric: BinnedAUC | LogLoss, *batches: tuple[torch.Tensor, ...]):
    for batch in batches:
        metric.update(*batch)
    return metric.compute()


@given(samples())
def test_auc_of_no_more_logits_than_bins_is_exact(sample: tuple) -> None:
    logits, labels, _ = sample
    assume(0 < labels.sum() < len(labels))
    result = computed(BinnedAUC(), (logits, labels))
    assert result.auc.item() == pytest.approx(roc_auc_score(labels, logits), abs=1e-12)
    assert result.auc.item() == pytest.approx(BinaryAUROC(thresholds=None)(logits, labels.long()).item(), abs=1e-6)
    assert result.samples == len(labels)
    assert result.error_bound == 0


@given(samples(), st.integers(2, 40))
def test_auc_error_stays_within_the_bound(sample: tuple, bins: int) -> None:
    logits, labels, _ = sample
    assume(0 < labels.sum() < len(labels))
    result = computed(BinnedAUC(bins=bins), (logits, labels))
    if result.error_bound > UNDEFINED:
        assert result.auc.isnan()
    else:
        assert abs(result.auc.item() - roc_auc_score(labels, logits)) <= result.error_bound.item() + 1e-12


SCALES = {
    "normal": lambda x: x,
    "beyond-16": lambda x: 40 * x,
    "large": lambda x: 1e30 * x,
    "small": lambda x: 1e-20 * x,
    "far-from-zero": lambda x: 1000 + x,
    "of-two-scales": lambda x: torch.where(torch.arange(len(x)) % 2 == 0, x, 1e-6 * x),
}


@pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
def test_auc_error_is_small_at_every_scale_of_logits(scale: Callable[[torch.Tensor], torch.Tensor]) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(50_000, generator=generator) < 0.3).float()
    logits = scale(torch.randn(50_000, generator=generator) + labels)
    result = computed(BinnedAUC(bins=1 << 13), *zip(logits.split(7000), labels.split(7000), strict=True))
    assert result.error_bound < 3e-4
    assert result.auc.item() == pytest.approx(roc_auc_score(labels, logits), abs=1e-5)


def test_auc_of_bins_does_not_depend_on_the_order_of_samples() -> None:
    """Nor on how they are cut into batches; the bins are those of all samples, not of the first."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(3000, generator=generator), (torch.arange(3000) % 3 == 0).float()
    logits[2000:] *= 1e5
    results = []
    for order, batch in ((torch.arange(3000), 3000), (torch.arange(3000).flip(0), 10), (torch.randperm(3000), 301)):
        batches = zip(logits[order].split(batch), labels[order].split(batch), strict=True)
        results.append(computed(BinnedAUC(bins=150), *batches))
    assert 0 < results[0].error_bound < UNDEFINED
    assert results[0] == results[1] == results[2]


def test_an_auc_that_is_hardly_known_is_warned_of_and_one_that_is_not_known_is_undefined(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Half of the logits are so close that the others' scale puts them in one bin."""
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(4000, generator=generator) < 0.5).float()
    far = 2.0 ** torch.linspace(-100, 100, 2000)
    for close, undefined in ((2000, True), (300, False)):
        caplog.clear()
        logits = torch.cat([far, 1 + 1e-5 * torch.rand(close, generator=generator)])
        result = computed(BinnedAUC(bins=64), (logits, labels[: len(logits)]))
        assert result.auc.isnan() == undefined == (result.error_bound > UNDEFINED)
        assert "AUC is known only to within" in caplog.text
        assert ("left undefined" in caplog.text) == undefined


def test_zeros_of_both_signs_tie() -> None:
    assert computed(BinnedAUC(), (torch.tensor([0.0, -0.0]), torch.tensor([1, 0]))).auc == 0.5


def test_logits_of_both_precisions_keep_all_their_bits() -> None:
    for dtype in (torch.float32, torch.float64):
        step = torch.finfo(dtype).eps
        logits = torch.tensor([1 + step, 1, -1, -1 - step], dtype=dtype)
        assert computed(BinnedAUC(), (logits, torch.tensor([1, 0, 1, 0]))).auc == 0.75


@given(samples())
def test_log_loss(sample: tuple) -> None:
    logits, labels, _ = sample
    expected = log_loss(labels, torch.sigmoid(logits.double()), labels=[0, 1])
    assert computed(LogLoss(), (logits, labels)).item() == pytest.approx(expected, abs=1e-12)


def test_log_loss_of_large_logits_does_not_overflow() -> None:
    assert computed(LogLoss(), (torch.tensor([1000.0, -1000.0]), torch.tensor([0, 0]))).item() == 500


@given(sample=samples(), points=st.lists(st.integers(0, 100), max_size=4), bins=st.sampled_from([2, 5, 1 << 17]))
def test_batches_and_ranks_add_up(sample: tuple, points: list[int], bins: int) -> None:
    logits, labels, _ = sample
    parts = [(logits[part], labels[part]) for part in cut(len(logits), points)]
    for kind in (LogLoss, partial(BinnedAUC, bins)):
        whole = torch.as_tensor(computed(kind(), (logits, labels)))
        ranks = [kind(), kind()]
        for number, part in enumerate(parts):
            ranks[number % 2].update(*part)
        for found in (computed(kind(), *parts), reduced(ranks).compute()):
            assert torch.allclose(torch.as_tensor(found), whole, rtol=1e-12, equal_nan=True)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_has_no_auc(label: int) -> None:
    result = computed(BinnedAUC(), (torch.randn(5), torch.full((5,), label)))
    assert math.isnan(result.auc)
    assert math.isnan(result.error_bound)


def test_no_samples_have_no_log_loss() -> None:
    assert math.isnan(computed(LogLoss(), (torch.empty(0), torch.empty(0))))


@pytest.mark.parametrize("kind", [BinnedAUC, LogLoss])
def test_bad_input(kind: type) -> None:
    with pytest.raises(ValueError, match="bins = 1: must be at least 2"):
        BinnedAUC(bins=1)
    metric = kind()
    with pytest.raises(FloatingPointError, match="2 of 3 logits are not finite"):
        metric.update(torch.tensor([0.0, math.nan, math.inf]), torch.zeros(3))
    with pytest.raises(ValueError, match=r"1 of 3 labels are neither 0 nor 1, the first 0\.5"):
        metric.update(torch.zeros(3), torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match=r"logits \[3\] and labels \[2\]"):
        metric.update(torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match=r"logits \[3, 1\]"):
        metric.update(torch.zeros(3, 1), torch.zeros(3, 1))


@given(samples(), st.integers(0, 2**32), st.lists(st.integers(0, 40), max_size=2))
def test_weighted_auc_and_log_loss_are_those_of_scikit_learn(sample: tuple, seed: int, points: list[int]) -> None:
    """In one batch, and as two ranks hold them; rows of weight 0 count for nothing."""
    logits, labels, _ = sample
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(len(logits), generator=generator) * 9 * (torch.rand(len(logits), generator=generator) < 0.8)
    assume((labels * weights).sum() > 0 and ((1 - labels) * weights).sum() > 0)
    expected_auc = roc_auc_score(labels, logits, sample_weight=weights)
    expected_loss = log_loss(labels, logits.double().sigmoid(), sample_weight=weights)
    parts = [(logits[part], labels[part], weights[part]) for part in cut(len(logits), points)]
    for kind, expected in ((BinnedAUC, expected_auc), (LogLoss, expected_loss)):
        ranks = [kind() for _ in parts]
        for rank, part in zip(ranks, parts, strict=True):
            rank.update(*part)
        for metric in (computed(kind(), (logits, labels, weights)), reduced(ranks).compute()):
            value = metric.auc if kind is BinnedAUC else metric
            assert value.item() == pytest.approx(expected, rel=1e-9)
    assert computed(BinnedAUC(), (logits, labels, weights)).samples == len(logits)
