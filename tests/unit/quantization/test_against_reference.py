"""Values, losses and every gradient against the plain implementation, for random sizes, repeats and ties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.quantization import CascadedQuantizer
from tests.unit.quantization import reference
from tests.unit.quantization.problems import build, problems


def run(quantizer: CascadedQuantizer, problem: dict, **inputs) -> dict[str, torch.Tensor]:
    z = problem["z"].clone().requires_grad_()
    fused, codes, loss = quantizer(z, **inputs)
    ((fused * problem["task_gradient"]).sum() + problem["omega"] * loss).backward()
    gradients = {f"codebook {i}": e.grad for i, e in enumerate(quantizer.codebooks)}
    return {"fused": fused, "codes": codes, "loss": loss, "z": z.grad, **gradients}


def run_reference(
    problem: dict, weights: torch.Tensor | None = None, frozen: tuple[int, ...] = ()
) -> dict[str, torch.Tensor]:
    z = problem["z"].clone().requires_grad_()
    codebooks = [e.clone().requires_grad_(i not in frozen) for i, e in enumerate(problem["codebooks"])]
    fused, codes, loss = reference.quantize(z, codebooks, **problem["arguments"], counts=weights)
    ((fused * problem["task_gradient"]).sum() + problem["omega"] * loss).backward()
    gradients = {f"codebook {i}": e.grad for i, e in enumerate(codebooks)}
    return {"fused": fused, "codes": codes, "loss": loss, "z": z.grad, **gradients}


@given(problems())
def test_values_and_gradients(problem: dict) -> None:
    quantizer = build(problem["codebooks"], **problem["arguments"])
    torch.testing.assert_close(run(quantizer, problem), run_reference(problem))


@given(problems(), st.data())
def test_counts_weight_the_loss(problem: dict, data: st.DataObject) -> None:
    size = len(problem["z"])
    counts = torch.tensor(data.draw(st.lists(st.integers(1, 3), min_size=size, max_size=size)))
    quantizer = build(problem["codebooks"], **problem["arguments"])
    expected = run_reference(problem, counts)
    torch.testing.assert_close(run(quantizer, problem, counts=counts), expected)
    check_usage(quantizer, expected["codes"], counts)


@given(problems(), st.data())
def test_vectors_to_fuse_only_weigh_nothing(problem: dict, data: st.DataObject) -> None:
    size = len(problem["z"])
    fuse_only = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(lambda x: not all(x)))
    )
    counts = torch.tensor(data.draw(st.lists(st.integers(1, 3), min_size=size, max_size=size)))
    weights = counts * ~fuse_only
    quantizer = build(problem["codebooks"], **problem["arguments"])
    expected = run_reference(problem, weights)
    torch.testing.assert_close(run(quantizer, problem, counts=counts, fuse_only=fuse_only), expected)
    check_usage(quantizer, expected["codes"], weights)
    alone, everything = (build(problem["codebooks"], **problem["arguments"]) for _ in range(2))
    torch.testing.assert_close(run(alone, problem, fuse_only=fuse_only), run_reference(problem, (~fuse_only).long()))
    torch.testing.assert_close(run(everything, problem, fuse_only=torch.zeros_like(fuse_only)), run_reference(problem))


def check_usage(quantizer: CascadedQuantizer, codes: torch.Tensor, weights: torch.Tensor) -> None:
    for level, usage in enumerate(quantizer.usage()):
        occurrences = codes[:, level].repeat_interleave(weights)
        assert torch.equal(usage, torch.bincount(occurrences, minlength=len(usage)))


@given(problems(), st.data())
def test_a_frozen_codebook_has_no_gradient_and_the_others_have_theirs(problem: dict, data: st.DataObject) -> None:
    levels = len(problem["codebooks"])
    frozen = tuple(data.draw(st.sets(st.integers(0, levels - 1), min_size=1)))
    quantizer = build(problem["codebooks"], **problem["arguments"])
    for level in frozen:
        quantizer.freeze(level)
    found, expected = run(quantizer, problem), run_reference(problem, frozen=frozen)
    assert [found[f"codebook {level}"] is None for level in range(levels)] == [i in frozen for i in range(levels)]
    torch.testing.assert_close(found, expected)


@given(problems(), st.data())
def test_distinct_ids_with_counts_equal_every_occurrence(problem: dict, data: st.DataObject) -> None:
    """Quantize the distinct vectors with counts and spread the result: values and gradients of every occurrence."""
    size = len(problem["z"])
    ids = torch.tensor(data.draw(st.lists(st.integers(0, size - 1), min_size=size, max_size=size)))
    table = problem["z"].clone().requires_grad_()
    arguments, omega, task_gradient = problem["arguments"], problem["omega"], problem["task_gradient"]

    every = build(problem["codebooks"], **arguments)
    fused, codes, loss = every(table[ids])
    ((fused * task_gradient).sum() + omega * loss).backward()
    every_gradient, table.grad = table.grad, None

    once = build(problem["codebooks"], **arguments)
    distinct, inverse, counts = torch.unique(ids, return_inverse=True, return_counts=True)
    fused_once, codes_once, loss_once = once(table[distinct], counts=counts)
    ((fused_once[inverse] * task_gradient).sum() + omega * loss_once).backward()

    assert torch.equal(codes_once[inverse], codes)
    torch.testing.assert_close([fused_once[inverse], loss_once, table.grad], [fused, loss, every_gradient])
    torch.testing.assert_close([e.grad for e in once.codebooks], [e.grad for e in every.codebooks])
    assert all(map(torch.equal, once.usage(), every.usage()))


@given(problems(), st.data())
def test_ids_change_nothing(problem: dict, data: st.DataObject) -> None:
    size = len(problem["z"])
    ids = torch.tensor(data.draw(st.lists(st.integers(0, size - 1), min_size=size, max_size=size)))
    problem = {**problem, "z": problem["z"][ids]}
    without = run(build(problem["codebooks"], **problem["arguments"]), problem)
    with_ids = run(build(problem["codebooks"], **problem["arguments"]), problem, ids=ids * 1_000_003)
    torch.testing.assert_close(with_ids, without)


@pytest.mark.parametrize("mode", ["task_and_quantization", "quantization"])
def test_gradients_by_hand(mode: str) -> None:
    """The table of gradients on one vector and two levels: z = 1, e1 = 3, e2 = 7; alpha = 1, beta = 0.5."""
    far = 100.0
    quantizer = build(
        [torch.tensor([[far], [3.0]]).double(), torch.tensor([[7.0]]).double()], beta=0.5, codebook_gradient=mode
    )
    z = torch.tensor([[1.0]], dtype=torch.float64, requires_grad=True)
    fused, codes, loss = quantizer(z)
    assert fused.item() == 1 + (3 + 7) / 2
    assert codes.tolist() == [[1, 0]]
    assert loss.item() == (1 + 0.5) * (2**2 + 4**2)
    (10 * fused.sum() + loss).backward()
    task = 10 / 2 if mode == "task_and_quantization" else 0
    assert z.grad.item() == (1 + 1) * 10 + 0.5 * 2 * (1 - 3)
    assert quantizer.codebooks[0].grad.flatten().tolist() == [0, task + 2 * (3 - 1) + 0.5 * 2 * (3 - 7)]
    assert quantizer.codebooks[1].grad.item() == task + 2 * (7 - 3)
