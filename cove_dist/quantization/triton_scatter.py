"""Sums of the vectors of each code as Triton kernels: `torch.Tensor.index_add_` by two methods.

"sorted": vectors are sorted by code and summed per code, in pieces of bounded length, then the pieces of each code in
order. The result is bit-identical from run to run, and frequent codes are not slower.
"atomic": blocks of vectors are added with atomic operations to one of several private copies of the output, which are
summed at the end. It reads the vectors in order; floating-point sums vary with the order of additions.

Shapes: ``N`` vectors, ``v`` codes, ``d`` components.
"""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl

Method = Literal["sorted", "atomic"]

INTERPRETED = triton.knobs.runtime.interpret
PIECE = 16 if INTERPRETED else 256  # vectors summed per program
BLOCK_N = 8 if INTERPRETED else 32  # vectors read at a time
MAX_BLOCK_D = 64
PRIVATE_ELEMENTS = 1 << 20  # in all private copies: 4 MB, a small part of the L2 cache, which executes atomics
MAX_COPIES = 64


@torch.no_grad()
def add_rows(
    out: torch.Tensor, codes: torch.Tensor, rows: torch.Tensor, alpha: float = 1.0, method: Method = "sorted"
) -> torch.Tensor:
    """Add ``alpha * rows[n]`` to ``out[codes[n]]`` in place, for every n, without a host sync.

    Args:
        out: Contiguous tensor, float32 ``[v, d]``, on CUDA, or on CPU in Triton's interpreter.
        codes: Codes int64 ``[N]``, from 0 to v - 1 (not checked); v below 2^31.
        rows: Vectors, float32 ``[N, d]``.
        alpha: Factor of the rows.
        method: "sorted" or "atomic"; see the module.

    Returns:
        ``out``.

    Raises:
        ValueError: ``out`` is not contiguous.
    """
    if not out.is_contiguous():
        raise ValueError(f"out has strides {out.stride()}: must be contiguous")
    if len(rows) == 0 or out.numel() == 0:
        return out
    with torch.cuda.device_of(out):
        (_add_sorted if method == "sorted" else _add_atomic)(out, codes.contiguous(), rows.contiguous(), alpha)
    return out


def _add_sorted(out: torch.Tensor, codes: torch.Tensor, rows: torch.Tensor, alpha: float) -> None:
    num_rows, size = len(rows), len(out)
    ordered, order = codes.int().sort(stable=True)
    of_code = torch.searchsorted(ordered, torch.arange(size + 1, dtype=torch.int32, device=out.device))
    # Pieces end where a code ends and at every multiple of their length: their number does not depend on the codes.
    every = torch.arange(0, num_rows, PIECE, device=out.device)
    of_piece = torch.cat([of_code, every]).sort().values
    pieces = out.new_empty(len(of_piece) - 1, out.shape[1])
    _sum_segments(pieces, rows, of_piece, order)
    _sum_segments(out, pieces, torch.searchsorted(of_piece, of_code), None, alpha)


def _sum_segments(
    out: torch.Tensor, rows: torch.Tensor, bounds: torch.Tensor, order: torch.Tensor | None, alpha: float | None = None
) -> None:
    """Sum consecutive rows, in a given order; overwrite ``out``, or add alpha times the sums to it."""
    dim = out.shape[1]
    block = _block_of_components(dim)
    _segments[(len(out), triton.cdiv(dim, block))](
        out, rows, bounds, bounds if order is None else order, 0.0 if alpha is None else alpha,
        D=dim, GATHER=order is not None, ADD=alpha is not None, BLOCK_N=BLOCK_N, BLOCK_D=block,
    )  # fmt: skip


def _add_atomic(out: torch.Tensor, codes: torch.Tensor, rows: torch.Tensor, alpha: float) -> None:
    dim = out.shape[1]
    block = _block_of_components(dim)
    programs = triton.cdiv(len(rows), BLOCK_N)
    copies = max(1, min(PRIVATE_ELEMENTS // out.numel(), MAX_COPIES, programs))
    target = out if copies == 1 else out.new_zeros(copies, *out.shape)
    _atomic[(programs, triton.cdiv(dim, block))](
        target, rows, codes, alpha, len(rows), copies, out.numel(), D=dim, BLOCK_N=BLOCK_N, BLOCK_D=block
    )
    if copies > 1:
        out.add_(target.sum(dim=0))


def _block_of_components(dim: int) -> int:
    return min(triton.next_power_of_2(dim), MAX_BLOCK_D)


@triton.jit
def _segments(
    out, rows, bounds, order, alpha,
    D: tl.constexpr, GATHER: tl.constexpr, ADD: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    segment = tl.program_id(0).to(tl.int64)
    components = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin, end = tl.load(bounds + segment), tl.load(bounds + segment + 1)
    sums = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    for first in range(begin, end, BLOCK_N):
        index = first + tl.arange(0, BLOCK_N)
        inside = index < end
        if GATHER:
            index = tl.load(order + index, mask=inside, other=0)
        mask = inside[:, None] & (components[None, :] < D)
        sums += tl.load(rows + index[:, None] * D + components[None, :], mask=mask, other=0.0)
    total = tl.sum(sums, axis=0)
    target = out + segment * D + components
    if ADD:
        total = tl.load(target, mask=components < D, other=0.0) + alpha * total
    tl.store(target, total, mask=components < D)


@triton.jit
def _atomic(
    out, rows, codes, alpha, num_rows, copies, copy_stride,
    D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    index = program.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    components = (tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D))[None, :]
    inside = index < num_rows
    mask = inside[:, None] & (components < D)
    tile = tl.load(rows + index[:, None] * D + components, mask=mask, other=0.0)
    target = tl.load(codes + index, mask=inside, other=0) * D
    copy = out + (program % copies).to(tl.int64) * copy_stride
    tl.atomic_add(copy + target[:, None] + components, alpha * tile, mask=mask, sem="relaxed")
