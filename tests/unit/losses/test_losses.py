"""Softmax losses of one rank against torch's cross-entropy in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from cove_dist.distributed import Collectives
from cove_dist.losses import Vocabulary, sampled_cross_entropy, vocabulary_cross_entropy

P, V, D = 13, 29, 8


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "hidden": torch.randn(P, D, generator=generator),
        "rows": torch.randn(V, D, generator=generator),
        "targets": torch.randint(V, (P,), generator=generator),
        "weights": torch.rand(P, generator=generator),
    }


@pytest.mark.parametrize("workspace", [1, 60, 10**6])
@pytest.mark.parametrize("scale", [1.0, 1e3], ids=["plain", "scores-beyond-exp"])
def test_a_whole_vocabulary(inputs: dict[str, torch.Tensor], workspace: int, scale: float) -> None:
    hidden, rows = ((inputs[name] * scale).requires_grad_() for name in ("hidden", "rows"))
    vocabulary = Vocabulary(rows, 0)
    loss = vocabulary_cross_entropy(hidden, inputs["targets"], inputs["weights"], vocabulary, Collectives(), workspace)
    loss.backward()
    exact = [x.detach().double().requires_grad_() for x in (hidden, rows)]
    losses = F.cross_entropy(exact[0] @ exact[1].T, inputs["targets"], reduction="none")
    (losses @ inputs["weights"].double()).backward()
    assert loss.item() == pytest.approx((losses @ inputs["weights"].double()).item(), rel=1e-5)
    for found, true in zip((hidden, rows), exact, strict=True):
        torch.testing.assert_close(found.grad.double(), true.grad, rtol=1e-5, atol=1e-5 * scale)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_factors_of_less_precision_err_by_their_rounding(
    inputs: dict[str, torch.Tensor], precision: torch.dtype
) -> None:
    found, true = [], []
    for losses, dtype in ((found, torch.float32), (true, torch.float64)):
        hidden, rows = (inputs[name].detach().to(dtype).requires_grad_() for name in ("hidden", "rows"))
        if dtype is torch.float64:
            loss = F.cross_entropy(hidden @ rows.T, inputs["targets"], reduction="none") @ inputs["weights"].double()
        else:
            weights, vocabulary = inputs["weights"], Vocabulary(rows, 0)
            loss = vocabulary_cross_entropy(
                hidden, inputs["targets"], weights, vocabulary, Collectives(), precision=precision
            )
        loss.backward()
        losses += [loss.detach(), hidden.grad, rows.grad]
    error = max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, true, strict=True))
    assert error < 4 * torch.finfo(precision).eps * D**0.5


def test_a_target_whose_row_is_of_another_group_is_scored_too(inputs: dict[str, torch.Tensor]) -> None:
    hidden, rows = (inputs[name].requires_grad_() for name in ("hidden", "rows"))
    of_rows = torch.arange(V) % 3
    groups = of_rows[inputs["targets"]]
    groups[4] = (groups[4] + 1) % 3
    loss = vocabulary_cross_entropy(
        hidden, inputs["targets"], inputs["weights"], Vocabulary(rows, 0, of_rows), Collectives(), groups=groups
    )
    loss.backward()
    exact = [x.detach().double().requires_grad_() for x in (hidden, rows)]
    scored = (groups[:, None] == of_rows) | (inputs["targets"][:, None] == torch.arange(V))
    scores = (exact[0] @ exact[1].T).masked_fill(~scored, -torch.inf)
    true = F.cross_entropy(scores, inputs["targets"], reduction="none") @ inputs["weights"].double()
    true.backward()
    assert loss.item() == pytest.approx(true.item(), rel=1e-5)
    for found, reference in zip((hidden, rows), exact, strict=True):
        torch.testing.assert_close(found.grad.double(), reference.grad, rtol=1e-5, atol=1e-5)


def test_no_position_is_no_loss(inputs: dict[str, torch.Tensor]) -> None:
    rows = inputs["rows"].requires_grad_()
    empty = inputs["hidden"][:0].requires_grad_()
    loss = vocabulary_cross_entropy(
        empty, inputs["targets"][:0], inputs["weights"][:0], Vocabulary(rows, 0), Collectives()
    )
    loss.backward()
    assert loss == 0
    assert not rows.grad.any()


def test_a_sample_of_every_item_once_is_the_whole_vocabulary(inputs: dict[str, torch.Tensor]) -> None:
    hidden, rows, targets = inputs["hidden"], inputs["rows"], inputs["targets"]
    loss = sampled_cross_entropy(
        hidden, rows[targets], targets, inputs["weights"], rows, torch.arange(V), torch.zeros(V)
    )
    exact = F.cross_entropy(hidden.double() @ rows.double().T, targets, reduction="none") @ inputs["weights"].double()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-6)


def test_correction_makes_a_skewed_sample_tend_to_the_whole_vocabulary(inputs: dict[str, torch.Tensor]) -> None:
    hidden, rows, targets = inputs["hidden"], inputs["rows"], inputs["targets"]
    probabilities = torch.softmax(0.2 * torch.arange(V), dim=0)
    sampled = torch.multinomial(probabilities, 400_000, replacement=True, generator=torch.Generator().manual_seed(0))
    exact = F.cross_entropy(hidden @ rows.T, targets, reduction="none") @ inputs["weights"]

    def loss(log_expected: torch.Tensor) -> float:
        arguments = hidden, rows[targets], targets, inputs["weights"], rows[sampled], sampled
        return sampled_cross_entropy(*arguments, log_expected[sampled]).item()

    assert loss((len(sampled) * probabilities).log()) == pytest.approx(exact.item(), rel=0.01)
    assert loss(torch.full((V,), len(sampled) / V).log()) != pytest.approx(exact.item(), rel=0.05)
