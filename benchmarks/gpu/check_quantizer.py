"""The quantizer on the device against plain float64 autograd on the CPU: codes, loss and every gradient.

A code counts as another one if its float64 distance is larger than the least by more than float32 scores can tell; the
gradients are then compared for the codes that the device chose.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial

os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # deterministic products; read when CUDA is first used

import torch
from clock import Bench
from quantizer_rivals import ALPHA, BETA, DIM, Problem, build_plain, build_problem

from cove_dist.quantization import CascadedQuantizer
from results import Row

LEVELS = ((500, 10), (4000, 200, 10), (8000, 400, 20))
SEARCHES = ("auto", "triton_tf32x3", "chunked")
ROUNDING = 2.0**-18  # of the largest score: 64 products and sums of float32
TOLERANCE = 1e-5  # of ||found - expected|| / ||expected||


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    for levels in LEVELS if not bench.tiny else ((30, 4),):
        for search in SEARCHES:
            for sums in ("atomic", "ordered"):
                name = f"{levels}, {search}, {sums} sums"
                yield name, partial(compare, bench, levels, search, sums == "ordered")


def compare(bench: Bench, levels: tuple[int, ...], search: str, ordered: bool) -> Row:
    """Compare one forward and backward pass; "other codes" counts vectors whose code is not the float64 one."""
    if search.startswith("triton") and bench.device.type == "cpu" and not triton_interpreted():
        return {"skipped": "needs CUDA or Triton's interpreter"}
    problem = build_problem(bench.size(8192, 40), levels)
    device = bench.device
    quantizer = CascadedQuantizer(DIM, levels, alpha=ALPHA, beta=BETA, search=search).to(device)
    with torch.no_grad():
        for codebook, start in zip(quantizer.codebooks, problem.codebooks, strict=True):
            codebook.copy_(start)
    z = problem.z.to(device, copy=True).requires_grad_()
    torch.use_deterministic_algorithms(ordered)
    try:
        out = quantizer(z)
        torch.autograd.backward([out.fused, out.loss], [problem.task_gradient.to(device), torch.ones_like(out.loss)])
    finally:
        torch.use_deterministic_algorithms(False)
    chosen = Chosen(out.codes.cpu())
    expected = build_plain(in_float64(problem), chosen)()
    other = chosen.wrong
    found = {
        "fused": (out.fused, expected.fused),
        "loss": (out.loss, expected.loss),
        "grad z": (z.grad, expected.grad_z),
    }
    for level, (codebook, gradient) in enumerate(zip(quantizer.codebooks, expected.grad_codebooks, strict=True), 1):
        found[f"grad codebook {level}"] = codebook.grad, gradient
    errors = {name: relative_error(*pair) for name, pair in found.items()}
    return {"ok": other == 0 and max(errors.values()) <= TOLERANCE, "other codes": other, **errors}


class Chosen:
    """Quantizes by given codes, level by level, and counts those that are not nearest.

    Args:
        codes: Codes ``[N, H]``.
    """

    def __init__(self, codes: torch.Tensor) -> None:
        self._levels = iter(codes.unbind(dim=1))
        self.wrong = 0

    def __call__(self, x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
        codes = next(self._levels)
        scores = codebook.detach().square().sum(dim=1) / 2 - x.detach() @ codebook.detach().t()
        gaps = scores.gather(1, codes.unsqueeze(1)).squeeze(1) - scores.amin(dim=1)
        self.wrong += int((gaps > ROUNDING * scores.abs().amax()).sum())
        return torch.nn.functional.embedding(codes, codebook)


def in_float64(problem: Problem) -> Problem:
    return Problem(
        problem.z.double(), problem.task_gradient.double(), problem.zipf_ids, problem.distinct_ids,
        [codebook.double() for codebook in problem.codebooks],
    )  # fmt: skip


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.detach().cpu().double(), expected.double()
    error = (found - expected).norm() / expected.norm().clamp(min=1e-30)
    return error.item()


def triton_interpreted() -> bool:
    try:
        import triton
    except ModuleNotFoundError:
        return False
    return triton.knobs.runtime.interpret
