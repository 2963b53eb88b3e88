"""A forward and backward pass of the quantizer beside the bare matmul, plain torch, another library, and its floor.

The floor is the larger of its FLOP over the measured rate of products and its least bytes over the measured rate of
copies. FLOP: the scores of level 1, ``2 N v d``. Bytes: z, the task's gradient, the fused vectors and the gradient of z
each once; z and residuals once more for the codebooks' gradients. Goals: at most 1.5 times the bare float32 matmul at
the two larger cascades, and at least 10 times as fast as plain torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from clock import Bench, copy_rate, matmul_precision, matmul_rate, milliseconds
from quantizer_rivals import (
    ALPHA,
    BETA,
    DIM,
    Problem,
    build_plain,
    build_problem,
    build_vector_quantize,
    gather_nearest,
)

from cove_dist.quantization import CascadedQuantizer
from cove_dist.quantization.search import nearest_code
from cove_dist.quantization.triton_support import usable
from results import Row

SIZES = ((65_536, 1_048_576), (200, 400))
LEVELS = ((8000, 400, 20), (4000, 200, 10), (500, 10))
MOST_BYTES = 40e9  # of the distances that plain torch keeps
GOAL, FASTER = 1.5, 10


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    for vectors in SIZES[bench.tiny]:
        for levels in LEVELS if not bench.tiny else ((30, 4),):
            yield f"{vectors:,} x {levels}", partial(compare, bench, vectors, levels)
    vectors, codes = bench.size(65_536, 40), bench.size(8000, 30)
    yield f"kernels, {vectors:,} x {codes}", partial(kernels, bench, vectors, codes)


def on_device(problem: Problem, bench: Bench) -> Problem:
    fields = (problem.z, problem.task_gradient, problem.zipf_ids, problem.distinct_ids)
    return Problem(*(each.to(bench.device) for each in fields), [e.to(bench.device) for e in problem.codebooks])


def compare(bench: Bench, vectors: int, levels: tuple[int, ...]) -> Row:
    """Return milliseconds of every contestant, and the ratios that the goals are about."""
    problem = on_device(build_problem(vectors, levels), bench)
    row: Row = {}
    for search in ("auto", "triton_tf32x3", "chunked") if usable(problem.z) else ("auto",):
        row[f"ours, {search}"] = milliseconds(build_ours(problem, bench, search), bench)
    bare = bare_matmul(problem)
    for precision in ("float32", "tf32"):
        with matmul_precision(precision):
            row[f"bare matmul, {precision}"] = milliseconds(bare, bench)
    del bare
    if 4 * vectors * levels[0] * 2 < MOST_BYTES:
        row["plain torch"] = milliseconds(build_plain(problem, gather_nearest), bench)
        row["vector-quantize-pytorch"] = rival(problem, bench)
    flop = 2 * vectors * levels[0] * DIM
    least_bytes = 6 * problem.z.nbytes
    row["floor"] = 1e3 * max(flop / matmul_rate(bench, "float32"), least_bytes / copy_rate(bench))
    row["x matmul"] = row["ours, auto"] / row["bare matmul, float32"]
    row["plain / ours"] = row["plain torch"] / row["ours, auto"] if "plain torch" in row else None
    if not bench.tiny and levels[0] > 500:
        row["goal"] = "met" if row["x matmul"] <= GOAL and (row["plain / ours"] or FASTER) >= FASTER else "missed"
    return row


def build_ours(problem: Problem, bench: Bench, search: str) -> Callable[[], object]:
    levels = [len(e) for e in problem.codebooks]
    quantizer = CascadedQuantizer(DIM, levels, alpha=ALPHA, beta=BETA, search=search).to(bench.device)
    with torch.no_grad():
        for codebook, start in zip(quantizer.codebooks, problem.codebooks, strict=True):
            codebook.copy_(start)
    z = problem.z.clone().requires_grad_()

    def step() -> None:
        z.grad = None
        quantizer.zero_grad()
        out = quantizer(z)
        torch.autograd.backward([out.fused, out.loss], [problem.task_gradient, torch.ones_like(out.loss)])

    return step


def bare_matmul(problem: Problem) -> Callable[[], object]:
    """``[N, d] x [d, v_1]``, in parts of at most 2^29 scores, each written over the one before."""
    transposed = problem.codebooks[0].t()
    rows = min(len(problem.z), (1 << 29) // transposed.shape[1])
    scores = problem.z.new_empty(rows, transposed.shape[1])

    def step() -> None:
        for part in problem.z.split(rows):
            torch.mm(part, transposed, out=scores[: len(part)])

    return step


def rival(problem: Problem, bench: Bench) -> float | str:
    try:
        with bench.device:
            step = build_vector_quantize(problem)
        return milliseconds(step, bench)
    except ModuleNotFoundError:
        return "not installed"
    except torch.OutOfMemoryError:
        return "out of memory"


def kernels(bench: Bench, vectors: int, codes: int) -> Row:
    """Return milliseconds of the search and of the sums by code, each method beside what it replaces."""
    from triton_kernels import kernel_times

    if bench.tiny and not triton_runs():
        return {"skipped": "needs CUDA or Triton's interpreter"}
    return dict(kernel_times(vectors, codes, DIM, bench.size(20, 1), bench.device.type))


def triton_runs() -> bool:
    try:
        nearest_code(torch.zeros(2, 4), torch.zeros(2, 4), "triton")
    except (ModuleNotFoundError, ValueError):
        return False
    return True
