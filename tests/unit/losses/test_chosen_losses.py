"""Losses that ``loss`` chooses, against their formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cove_dist.losses.ctr import BinaryCrossEntropy, Focal
from cove_dist.losses.pairs import BPR, SampledSoftmax
from cove_dist.models.cf.bprmf import BPRMF

GENERATOR = np.random.default_rng(0)
LOGITS, LABELS = GENERATOR.normal(0, 4, 200), GENERATOR.integers(0, 2, 200).astype(float)
POSITIVES, NEGATIVES = GENERATOR.normal(0, 3, 50), GENERATOR.normal(0, 3, (50, 7))


def tensors(*values: np.ndarray) -> list[torch.Tensor]:
    return [torch.from_numpy(value).float() for value in values]


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.5])
def test_focal_loss(gamma: float) -> None:
    probability = 1 / (1 + np.exp(np.where(LABELS == 1, -LOGITS, LOGITS)))  # of the true label
    expected = ((1 - probability) ** gamma * -np.log(probability)).mean()
    assert Focal(gamma=gamma)(*tensors(LOGITS, LABELS)).mean().item() == pytest.approx(expected, rel=1e-5)
    if gamma == 0:
        assert BinaryCrossEntropy()(*tensors(LOGITS, LABELS)).mean().item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_of_rows_that_are_certain_has_finite_gradients() -> None:
    logits = torch.tensor([200.0, -200.0, 200.0], requires_grad=True)
    Focal(gamma=0.5)(logits, torch.tensor([1.0, 0.0, 0.0])).mean().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_sampled_softmax(temperature: float) -> None:
    scores = np.concatenate([POSITIVES[:, None], NEGATIVES], axis=1) / temperature
    expected = -np.log(np.exp(scores[:, 0]) / np.exp(scores).sum(axis=1)).mean()
    loss = SampledSoftmax(temperature=temperature)
    assert loss(*tensors(POSITIVES, NEGATIVES)).mean().item() == pytest.approx(expected, rel=1e-5)


def test_bpr_is_the_loss_that_recommenders_have() -> None:
    expected = np.log1p(np.exp(NEGATIVES - POSITIVES[:, None])).mean()
    inputs = tensors(POSITIVES, NEGATIVES)
    assert BPR()(*inputs).mean().item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(BPR()(*inputs), BPRMF(4).loss(*inputs))
