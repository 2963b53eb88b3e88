"""The contestants of `benchmarks/quantizer.py`: this project's quantizer, usual implementations, and searches only.

Shapes: ``N`` vectors, ``d`` components, ``H`` levels, ``v_i`` codes at level i.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import NamedTuple, get_args

import torch
from torch.nn import functional

from cove_dist.quantization import CascadedQuantizer
from cove_dist.quantization.search import Search, nearest_code

DIM = 64
ALPHA = BETA = 1.0  # as in Table 5 of the paper; vector-quantize-pytorch has no other beta
IDS = 100_000  # of which the batch draws, with odds 1/k for the k-th


@dataclass(frozen=True)
class Problem:
    """One batch and one start of the codebooks, the same for every contestant of a size.

    Attributes:
        z: ``[N, d]``; vectors of equal Zipf ids are equal.
        task_gradient: ``[N, d]``, what the task loss would send back to the fused vectors: of a mean over the batch.
        zipf_ids: int64 ``[N]``.
        distinct_ids: int64 ``[N]``, no two alike, in random order.
        codebooks: H tensors ``[v_i, d]``.
    """

    z: torch.Tensor
    task_gradient: torch.Tensor
    zipf_ids: torch.Tensor
    distinct_ids: torch.Tensor
    codebooks: list[torch.Tensor]

    def head(self, vectors: int) -> Problem:
        """Return the problem of only the first vectors."""
        batch = (self.z, self.task_gradient, self.zipf_ids, self.distinct_ids)
        return Problem(*(tensor[:vectors].clone() for tensor in batch), self.codebooks)


class Outcome(NamedTuple):
    """What a forward and backward pass leaves: ``fused [N, d]``, the loss, and the gradients of z and the codebooks."""

    fused: torch.Tensor
    loss: torch.Tensor
    grad_z: torch.Tensor
    grad_codebooks: list[torch.Tensor]


Step = Callable[[], object]
Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]  # z -> fused, loss


@dataclass(frozen=True)
class Contestant:
    """``build`` prepares everything but the step that is measured; ``package`` is what it needs besides torch."""

    label: str
    build: Callable[[Problem], Step]
    package: str | None = None

    @property
    def installed(self) -> bool:
        return self.package is None or find_spec(self.package) is not None


def draw_zipf_ids(vectors: int, generator: torch.Generator) -> torch.Tensor:
    odds = 1 / torch.arange(1, IDS + 1, dtype=torch.float64)
    return torch.multinomial(odds, vectors, replacement=True, generator=generator)


def build_problem(vectors: int, levels: Sequence[int]) -> Problem:
    """Build the problem, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    zipf_ids = draw_zipf_ids(vectors, generator)
    distinct, inverse = torch.unique(zipf_ids, return_inverse=True)
    z = torch.randn(len(distinct), DIM, generator=generator)[inverse]
    task_gradient = torch.randn(vectors, DIM, generator=generator) / vectors
    directions = [torch.randn(size, DIM, generator=generator) for size in levels]
    codebooks = [functional.normalize(e) * DIM**0.5 for e in directions]  # as `CascadedQuantizer` starts
    distinct_ids = torch.randperm(vectors, generator=generator) * 1_000_003
    return Problem(z, task_gradient, zipf_ids, distinct_ids, codebooks)


def forward_and_backward(problem: Problem, forward: Forward, codebooks: Sequence[torch.Tensor]) -> Step:
    z = problem.z.clone().requires_grad_()

    def step() -> Outcome:
        for leaf in (z, *codebooks):
            leaf.grad = None
        fused, loss = forward(z)
        torch.autograd.backward([fused, loss], [problem.task_gradient, torch.ones_like(loss)])
        return Outcome(fused.detach(), loss.detach(), z.grad, [codebook.grad for codebook in codebooks])

    return step


def build_ours(problem: Problem, ids: str | None) -> Step:
    quantizer = CascadedQuantizer(DIM, [len(e) for e in problem.codebooks], alpha=ALPHA, beta=BETA)
    with torch.no_grad():
        for parameter, start in zip(quantizer.codebooks, problem.codebooks, strict=True):
            parameter.copy_(start)
    given = None if ids is None else getattr(problem, ids)

    def forward(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out = quantizer(z, ids=given)
        return out.fused, out.loss

    return forward_and_backward(problem, forward, list(quantizer.codebooks))


def gather_nearest(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    codes = torch.cdist(x.detach(), codebook.detach()).argmin(dim=1)
    return functional.embedding(codes, codebook)


def one_hot_nearest(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    """Look up codes as in usual VQ-VAE code: a one-hot row per vector, times the codebook."""
    codes = torch.cdist(x.detach(), codebook.detach()).argmin(dim=1, keepdim=True)
    one_hot = torch.zeros(len(x), len(codebook)).scatter_(1, codes, 1)
    return one_hot @ codebook


def build_plain(problem: Problem, nearest: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Step:
    """Build Eq. 1 to 6 by autograd: every level over the whole batch."""
    codebooks = [codebook.clone().requires_grad_() for codebook in problem.codebooks]

    def forward(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        level_input, loss, total = z, z.new_zeros(()), torch.zeros_like(z)
        for codebook in codebooks:
            chosen = nearest(level_input, codebook)
            loss = loss + functional.mse_loss(chosen, level_input.detach())
            loss = loss + BETA * functional.mse_loss(level_input, chosen.detach())
            total = total + chosen + (z - z.detach())
            level_input = chosen
        return z + ALPHA / len(codebooks) * total, loss

    return forward_and_backward(problem, forward, codebooks)


def build_vector_quantize(problem: Problem) -> Step:
    """Build vector-quantize-pytorch nearest to the paper: codebooks by gradient, plain straight-through estimator.

    Its one loss per level pulls code and input alike, at half the value of Eq. 6 with ``beta = 1`` and with its
    gradients. The task's gradient does not reach its codebooks.
    """
    from vector_quantize_pytorch import VectorQuantize

    settings = {"learnable_codebook": True, "ema_update": False, "rotation_trick": False, "commitment_weight": BETA}
    levels = [VectorQuantize(DIM, len(codebook), **settings) for codebook in problem.codebooks]
    with torch.no_grad():
        for level, start in zip(levels, problem.codebooks, strict=True):
            level.codebook = start

    def forward(z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        level_input, loss, total = z.unsqueeze(0), z.new_zeros(()), z.new_zeros(())
        for level in levels:
            level_input, _, level_loss = level(level_input)
            loss, total = loss + level_loss, total + level_input
        return z + ALPHA / len(levels) * total.squeeze(0), loss

    return forward_and_backward(problem, forward, [level._codebook.embed for level in levels])


def build_matmul(problem: Problem) -> Step:
    """Build ``[N, d] x [d, v_1]`` into an allocated matrix."""
    transposed = problem.codebooks[0].t()
    scores = problem.z.new_empty(len(problem.z), len(problem.codebooks[0]))
    return lambda: torch.mm(problem.z, transposed, out=scores)


def build_search(problem: Problem, backend: str) -> Step:
    return lambda: nearest_code(problem.z, problem.codebooks[0], backend=backend)


SEARCHES = {
    f"search_{backend}": Contestant(
        f"{backend}, search alone", partial(build_search, backend=backend), "faiss" if backend == "faiss" else None
    )
    for backend in get_args(Search)[1:]
    if not backend.startswith("triton")  # takes no CPU tensors
}
CONTESTANTS = {
    "matmul": Contestant("bare matmul", build_matmul),
    "plain": Contestant("plain torch", partial(build_plain, nearest=gather_nearest)),
    "one_hot": Contestant("one-hot form", partial(build_plain, nearest=one_hot_nearest)),
    "search_faiss": SEARCHES["search_faiss"],
    "vector_quantize": Contestant("vector-quantize-pytorch", build_vector_quantize, "vector_quantize_pytorch"),
    "ours_distinct": Contestant("ours, ids all distinct", partial(build_ours, ids="distinct_ids")),
    "ours_zipf": Contestant("ours, ids by Zipf", partial(build_ours, ids="zipf_ids")),
    "ours": Contestant("ours, without ids", partial(build_ours, ids=None)),
}
