"""Codebooks as moving averages against a float64 loop, code by code."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance
from cove_dist.quantization.moving_average import SMOOTHING
from tests.unit.quantization.problems import build, problems


def average_a_step(
    vectors: torch.Tensor,
    weights: torch.Tensor,
    codebooks: list[torch.Tensor],
    averages: list[torch.Tensor],
    decay: float,
    cascade: str = "codes",
) -> None:
    """Counts and sums of every level, averaged and divided; smoothing is this much weight of where a code stands."""
    inputs, moved = vectors, []
    for codebook, average in zip(codebooks, averages, strict=True):
        chosen, sums, left = torch.zeros_like(average), torch.zeros_like(codebook), []
        for x, weight in zip(inputs, weights, strict=True):
            code = (codebook - x).square().sum(dim=1).argmin()
            chosen[code] += weight
            sums[code] += weight * x
            left.append(x - codebook[code])
        summed = decay * average.unsqueeze(1) * codebook + (1 - decay) * sums
        average.copy_(decay * average + (1 - decay) * chosen)
        moved.append((summed + SMOOTHING * codebook) / (average + SMOOTHING).unsqueeze(1))
        inputs, weights = (codebook, chosen) if cascade == "codes" else (left, weights)
    codebooks[:] = moved


@given(problems(), st.sampled_from([0.5, 0.9, 0.99]), st.data())
def test_counts_and_codebooks_of_all_levels(problem: dict, decay: float, data: st.DataObject) -> None:
    cascade = problem["arguments"]["cascade"]
    quantizer = build(problem["codebooks"], learning="ema", ema_decay=decay, cascade=cascade)
    maintenance = CodebookMaintenance({"item": quantizer})
    codebooks = [codebook.clone() for codebook in problem["codebooks"]]
    averages = [torch.ones(len(codebook), dtype=torch.float64) for codebook in codebooks]
    size = len(problem["z"])
    integers = not problem["z"].frac().any()  # their ties hang on rounding once codes have moved
    for step in range(1, 2 if integers else 4):
        counts = torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)))
        z = problem["z"] * step
        quantizer(z, counts=counts)
        maintenance.after_step(step)
        average_a_step(z, counts, codebooks, averages, decay, cascade)
        torch.testing.assert_close([e.data for e in quantizer.codebooks], codebooks)
        torch.testing.assert_close(quantizer.moving_averages.counts, torch.cat(averages))
        assert not quantizer.moving_averages.step_statistics.any()


@given(problems(), st.data())
def test_distinct_ids_with_counts_move_codebooks_as_every_occurrence_does(problem: dict, data: st.DataObject) -> None:
    size = len(problem["z"])
    ids = torch.tensor(data.draw(st.lists(st.integers(0, size - 1), min_size=size, max_size=size)))
    distinct, counts = torch.unique(ids, return_counts=True)
    passes = {"every": (problem["z"][ids], None), "distinct": (problem["z"][distinct], counts)}
    moved = {}
    for name, (z, weights) in passes.items():
        quantizer = build(problem["codebooks"], learning="ema", cascade=problem["arguments"]["cascade"])
        quantizer(z, counts=weights)
        CodebookMaintenance({"item": quantizer}).after_step(1)
        moved[name] = [e.data for e in quantizer.codebooks]
    torch.testing.assert_close(moved["distinct"], moved["every"])


@given(problems())
def test_gradients_reach_only_the_input(problem: dict) -> None:
    """``(1 + alpha) g`` and the commitment, as where codebooks learn by gradient."""
    gradients = {}
    for learning in ("gradient", "ema"):
        quantizer = build(problem["codebooks"], learning=learning, **problem["arguments"])
        z = problem["z"].clone().requires_grad_()
        fused, codes, loss = quantizer(z)
        ((fused * problem["task_gradient"]).sum() + problem["omega"] * loss).backward()
        gradients[learning] = z.grad
    alpha, beta = problem["arguments"]["alpha"], problem["arguments"]["beta"]
    over = z.numel() if problem["arguments"]["loss_reduction"] == "mean" else len(z)
    left, commitment = problem["z"], torch.zeros_like(problem["z"])
    levels = len(problem["codebooks"]) if problem["arguments"]["cascade"] == "residual" else 1  # that commit the input
    for level in range(levels):
        left = left - problem["codebooks"][level][codes[:, level]]
        commitment += 2 * beta * left / over
    expected = (1 + alpha) * problem["task_gradient"] + problem["omega"] * commitment
    torch.testing.assert_close(gradients["ema"], expected)
    torch.testing.assert_close(gradients["ema"], gradients["gradient"])
    assert all(e.grad is None and not e.requires_grad for e in quantizer.codebooks)


def test_a_code_that_nothing_chooses_stays_where_it_is_to_the_bit() -> None:
    """Averages of sums would first fall to the smoothing, then under the smallest float, and end at the origin."""
    quantizer = CascadedQuantizer(4, (3, 2), learning="ema", ema_decay=0.5)
    with torch.no_grad():
        quantizer.codebooks[0].copy_(torch.eye(3, 4))
        quantizer.codebooks[1].copy_(torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 9.0, 0]]))
    maintenance, dead = CodebookMaintenance({"item": quantizer}), [e.data.clone() for e in quantizer.codebooks]
    for step in range(1, 401):
        quantizer(torch.tensor([[1.0, 0.1, 0, 0], [0.1, 1.0, 0, 0]]))
        maintenance.after_step(step)
    assert quantizer.moving_averages.counts[2] == 0
    assert torch.equal(quantizer.codebooks[0][2], dead[0][2])
    assert torch.equal(quantizer.codebooks[1][1], dead[1][1])
    assert quantizer.codebooks[0][0].tolist() == pytest.approx([1, 0.1, 0, 0])
    quantizer(torch.eye(3, 4)[2:] * 2)
    maintenance.after_step(401)
    assert quantizer.codebooks[0][2].tolist() == pytest.approx([0, 0, 2, 0], rel=1e-4)  # it has no weight left


def test_codebooks_become_the_means_of_what_chooses_them() -> None:
    torch.manual_seed(0)
    centres = torch.randn(6, 8)
    quantizer = CascadedQuantizer(8, (6,), learning="ema", ema_decay=0.9)
    with torch.no_grad():
        quantizer.codebooks[0].copy_(centres + 0.1 * torch.randn(6, 8))
    maintenance = CodebookMaintenance({"item": quantizer})
    z = centres.repeat(50, 1) + 0.05 * torch.randn(300, 8)
    for step in range(1, 200):
        codes = quantizer(z).codes[:, 0]
        maintenance.after_step(step)
    means = torch.stack([z[codes == code].mean(dim=0) for code in range(6)])
    torch.testing.assert_close(quantizer.codebooks[0].data, means, rtol=0, atol=1e-5)


def test_several_passes_make_one_step() -> None:
    z = torch.randn(40, 8, dtype=torch.float64)
    start = [torch.randn(v, 8, dtype=torch.float64) for v in (12, 3)]
    once, twice = build(start, learning="ema"), build(start, learning="ema")
    once(z)
    twice(z[:15])
    twice(z[15:])
    for quantizer in (once, twice):
        CodebookMaintenance({"item": quantizer}).after_step(1)
    torch.testing.assert_close([e.data for e in twice.codebooks], [e.data for e in once.codebooks])


def test_the_state_is_the_codebooks_and_the_counts() -> None:
    quantizer, other = (CascadedQuantizer(8, (20, 5), learning="ema") for _ in range(2))
    quantizer(torch.randn(50, 8))
    CodebookMaintenance({"item": quantizer}).after_step(1)
    state = quantizer.state_dict()
    assert list(state) == ["codebooks.0", "codebooks.1", "moving_averages.counts"]
    other.load_state_dict(state)
    z = torch.randn(50, 8)
    for either in (quantizer, other):
        either(z)
        CodebookMaintenance({"item": either}).after_step(2)
    assert all(map(torch.equal, other.state_dict().values(), quantizer.state_dict().values()))


def test_evaluation_is_not_averaged() -> None:
    quantizer = CascadedQuantizer(8, (20, 5), learning="ema").eval()
    quantizer(torch.randn(50, 8))
    assert not quantizer.moving_averages.step_statistics.any()


def test_alpha_zero_is_the_identity_to_the_bit_under_moving_averages_too() -> None:
    z = torch.randn(64, 8)
    z[0] = -0.0
    z.requires_grad_()
    gradient = torch.randn(64, 8)
    gradient[1] = -0.0
    quantizer = CascadedQuantizer(8, (12, 3), alpha=0.0, learning="ema")
    fused, _, loss = quantizer(z)
    (fused * gradient).sum().add(0.0 * loss).backward()
    assert torch.equal(fused.view(torch.int32), z.view(torch.int32))
    assert torch.equal(z.grad, gradient)
    z.grad = None
    quantizer(z).fused.backward(gradient)
    assert torch.equal(z.grad.view(torch.int32), gradient.view(torch.int32))
