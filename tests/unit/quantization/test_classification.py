"""Codebook classification heads against a float64 formula."""

from __future__ import annotations

import math

import pytest
import torch

from cove_dist.quantization import CascadedQuantizer, CodeClassifier

LEVELS = (7, 3)


def problem() -> tuple[CodeClassifier, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    codes = torch.stack([torch.randint(0, size, (4, 5)) for size in LEVELS], dim=-1)
    return CodeClassifier(6, LEVELS).double(), torch.randn(4, 5, 6, dtype=torch.float64), codes


def cross_entropy(classifier: CodeClassifier, hidden: torch.Tensor, codes: torch.Tensor) -> float:
    """Of one position: ``sum over levels of log(sum_k exp(logit_k)) - logit_code``."""
    total = 0.0
    for head, code in zip(classifier.heads, codes.tolist(), strict=True):
        logits = [
            sum(w * h for w, h in zip(row, hidden.tolist(), strict=True)) + bias
            for row, bias in zip(head.weight.tolist(), head.bias.tolist(), strict=True)
        ]
        total += math.log(sum(math.exp(logit) for logit in logits)) - logits[code]
    return total


def test_the_loss_is_the_mean_over_positions_of_cross_entropies_summed_over_levels() -> None:
    classifier, hidden, codes = problem()
    expected = [cross_entropy(classifier, hidden[i, j], codes[i, j]) for i in range(4) for j in range(5)]
    assert classifier(hidden, codes).item() == pytest.approx(sum(expected) / 20)


@pytest.mark.parametrize("kind", [torch.int64, torch.bool])
def test_counts_weigh_positions_and_a_mask_leaves_them_out(kind: torch.dtype) -> None:
    classifier, hidden, codes = problem()
    counts = torch.randint(0, 4, (4, 5)).to(kind)
    weighed = [
        int(counts[i, j]) * cross_entropy(classifier, hidden[i, j], codes[i, j]) for i in range(4) for j in range(5)
    ]
    hidden.requires_grad_()
    loss = classifier(hidden, codes, counts)
    assert loss.item() == pytest.approx(sum(weighed) / int(counts.sum()))
    loss.backward()
    assert torch.equal(hidden.grad.any(dim=-1), counts > 0)


def test_nothing_to_weigh_costs_nothing_and_leaves_zero_gradients() -> None:
    classifier, hidden, codes = problem()
    for loss in (
        classifier(hidden, codes, torch.zeros(4, 5, dtype=torch.bool)),
        classifier(hidden[:0], codes[:0]),
    ):
        classifier.zero_grad()
        loss.backward()
        assert loss.item() == 0
        assert all(p.grad is not None and not p.grad.any() for p in classifier.parameters())


def test_no_gradient_goes_into_codebooks() -> None:
    quantizer = CascadedQuantizer(6, LEVELS)
    codes = quantizer(torch.randn(5, 6)).codes
    hidden = torch.randn(5, 6, requires_grad=True)
    CodeClassifier(6, LEVELS)(hidden, codes).backward()
    assert hidden.grad.any()
    assert all(e.grad is None for e in quantizer.codebooks)


def test_a_linear_map_of_the_codes_is_learned() -> None:
    torch.manual_seed(0)
    quantizer, z = CascadedQuantizer(6, LEVELS, init_std=1.0), torch.randn(300, 6)
    codes, classifier = quantizer(z).codes, CodeClassifier(6, LEVELS)
    optimizer = torch.optim.Adam(classifier.parameters(), lr=0.1)
    for _ in range(100):
        optimizer.zero_grad()
        loss = classifier(z, codes)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * (math.log(7) + math.log(3))


def test_hidden_states_of_lower_precision_give_a_loss_in_float32() -> None:
    classifier = CodeClassifier(6, LEVELS)
    hidden, codes, mask = torch.randn(8, 6), torch.zeros(8, 2, dtype=torch.int64), torch.arange(8) < 5
    expected = classifier(hidden, codes, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = classifier(hidden.bfloat16(), codes, mask)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)


@pytest.mark.parametrize(
    ("codes", "counts", "message"),
    [
        ((4, 5), None, r"codes \[4, 5\]: must be \[4, 5, 2\]"),
        ((4, 5, 3), None, r"codes \[4, 5, 3\]"),
        ((5, 4, 2), None, r"codes \[5, 4, 2\]"),
        ((4, 5, 2), (20,), r"codes \[4, 5, 2\] and counts \[20\]"),
    ],
)
def test_shapes_that_do_not_agree(codes: tuple[int, ...], counts: tuple[int, ...] | None, message: str) -> None:
    classifier, hidden, _ = problem()
    weights = None if counts is None else torch.ones(counts, dtype=torch.int64)
    with pytest.raises(ValueError, match=message):
        classifier(hidden, torch.zeros(codes, dtype=torch.int64), weights)
