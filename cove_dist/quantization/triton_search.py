"""Exact nearest-code search as Triton kernels: scores stay on the chip, block by block (Eq. 1).

A score is ``||e||²/2 - x·e``, as in `search`. A program has a block of vectors and goes through all codes; for each
vector and each column of a block of codes it keeps the least score so far and where that was. The lowest index wins a
tie; NaN counts as the least score, as in `torch.argmin`.

Two precisions. "ieee" computes scores by float32 multiply-adds. "tf32x3" computes them by three products of tensor
cores, whose error is bounded; where the second-best score is within twice that bound of the best, all scores of the
vector are computed again in float64. Its codes are those of float64, whatever the error of the first pass.

Shapes: ``N`` vectors, ``v`` codes, ``d`` components.
"""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl

Precision = Literal["ieee", "tf32x3"]

INTERPRETED = triton.knobs.runtime.interpret
RANK_AGAIN = {"BLOCK_N": 8, "BLOCK_V": 128, "num_warps": 8, "num_stages": 3}  # few vectors are ambiguous
MANY_VECTORS = 1 << 14  # fill the 132 processors of a Hopper GPU with blocks of 128
ONE_BLOCK = 64  # codes


def _blocks(vectors: int, codes: int, warps: int, stages: int) -> triton.Config:
    return triton.Config({"BLOCK_N": vectors, "BLOCK_V": codes}, num_warps=warps, num_stages=stages)


# Compiled for sm_90 none of these spills registers at d = 64; larger blocks do. The first reads the codebook least, the
# others overlap several programs a processor, and keep all processors busy with few vectors.
CONFIGS = [_blocks(128, 64, 8, 2), _blocks(64, 64, 4, 2), _blocks(32, 64, 4, 2)]
SMALL = [_blocks(16, 32, 1, 1)]  # several blocks in small tests
AUTOTUNED = triton.autotune(
    SMALL if INTERPRETED else CONFIGS, key=["D", "size_class", "PRECISION"], reset_to_zero=["count"]
)


@torch.no_grad()
def nearest_code(x: torch.Tensor, codebook: torch.Tensor, precision: Precision = "ieee") -> torch.Tensor:
    """Find ``argmin_k ||x_n - e_k||²`` for every row, without a matrix of distances and without a host sync.

    The first call for a dimension, size class and precision measures three block shapes and keeps the fastest.

    Args:
        x: Vectors, float32 ``[N, d]``, on CUDA, or on CPU in Triton's interpreter.
        codebook: Codebook, float32 ``[v, d]``, v at least 1, on the same device. Rows are read 16 bytes at a time if d
            is a multiple of 4.
        precision: "ieee" or "tf32x3"; see the module.

    Returns:
        Codes int64 ``[N]``.
    """
    x, codebook = x.contiguous(), codebook.contiguous()
    codes = torch.empty(len(x), dtype=torch.int64, device=x.device)
    if len(x) == 0:
        return codes
    with torch.cuda.device_of(x):
        if precision == "ieee":
            _search(x, codebook, codes)
        else:
            _search_twice(x, codebook, codes)
    return codes


def _search(x: torch.Tensor, codebook: torch.Tensor, codes: torch.Tensor) -> None:
    half_norms = codebook.square().sum(dim=1) / 2
    count = codes.new_empty(1)  # unused, as are the largest norm and the list
    _nearest[_grid(len(x))](
        x, codebook, half_norms, codes, half_norms, codes, count, len(x), len(codebook), _size_class(x, codebook),
        D=x.shape[1], DOUBTS=False, PRECISION="ieee", BLOCK_D=_block_of_components(x.shape[1]),
    )  # fmt: skip


def _search_twice(x: torch.Tensor, codebook: torch.Tensor, codes: torch.Tensor) -> None:
    exact_half_norms = codebook.double().square().sum(dim=1) / 2
    half_norms = exact_half_norms.float()
    largest = half_norms.amax(dim=0, keepdim=True)
    doubtful, count = torch.empty_like(codes), codes.new_zeros(1)
    _nearest[_grid(len(x))](
        x, codebook, half_norms, codes, largest, doubtful, count, len(x), len(codebook), _size_class(x, codebook),
        D=x.shape[1], DOUBTS=True, PRECISION="tf32x3", BLOCK_D=_block_of_components(x.shape[1]),
    )  # fmt: skip
    grid = (triton.cdiv(len(x), RANK_AGAIN["BLOCK_N"]),)  # of which those past the count end at once
    _rank_again[grid](
        x, codebook, exact_half_norms, codes, doubtful, count, len(codebook),
        D=x.shape[1], BLOCK_D=_block_of_components(x.shape[1]), **RANK_AGAIN,
    )  # fmt: skip


def _grid(num_vectors: int):
    return lambda config: (triton.cdiv(num_vectors, config["BLOCK_N"]),)


def _size_class(x: torch.Tensor, codebook: torch.Tensor) -> int:
    """Return a class of sizes with the same fastest block shape, for autotuning."""
    return 2 * (len(x) > MANY_VECTORS) + (len(codebook) > ONE_BLOCK)


def _block_of_components(dim: int) -> int:
    """Return the largest of the block sizes with the least padding of d."""
    return min((64, 32, 16), key=lambda size: -(-dim // size) * size)


@triton.jit
def _scores(x_rows, x_tile, code_rows, half_norms, D: tl.constexpr, BLOCK_D: tl.constexpr, PRECISION: tl.constexpr):
    """Compute ``half_norms - x·e``: ``[BLOCK_N, BLOCK_V]`` of the dtype of ``half_norms``."""
    components = tl.arange(0, BLOCK_D)
    dtype = half_norms.dtype
    if D <= BLOCK_D:
        code_tile = tl.load(code_rows + components[:, None], mask=components[:, None] < D, other=0.0).to(dtype)
        products = tl.dot(x_tile, code_tile, input_precision=PRECISION, out_dtype=dtype)
    else:
        products = tl.zeros([x_rows.shape[0], code_rows.shape[1]], dtype)
        for first in range(0, D, BLOCK_D):
            part = first + components
            tile = tl.load(x_rows + part[None, :], mask=part[None, :] < D, other=0.0).to(dtype)
            code_tile = tl.load(code_rows + part[:, None], mask=part[:, None] < D, other=0.0).to(dtype)
            products = tl.dot(tile, code_tile, products, input_precision=PRECISION, out_dtype=dtype)
    return half_norms[None, :] - products


@triton.jit
def _first_least(best, index, num_codes):
    """Return the index of the least score per row: the first NaN if there is one, the first of equal scores."""
    unordered = best != best
    any_unordered = tl.max(unordered.to(tl.int32), axis=1)[:, None] > 0
    least = tl.min(tl.where(unordered, float("inf"), best), axis=1)[:, None]
    chosen = tl.where(any_unordered, unordered, best == least)
    return tl.min(tl.where(chosen, index, num_codes), axis=1)


@AUTOTUNED
@triton.jit
def _nearest(
    x, codebook, half_norms, codes, largest, doubtful, count, num_vectors, num_codes, size_class,
    D: tl.constexpr, DOUBTS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Compute the codes of a block of vectors; with DOUBTS, list ambiguous vectors in any order."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = rows < num_vectors
    x_rows = x + tl.minimum(rows, num_vectors - 1)[:, None] * D
    components = tl.arange(0, BLOCK_D)
    x_tile = tl.load(x_rows + components[None, :], mask=components[None, :] < D, other=0.0)
    columns = tl.arange(0, BLOCK_V)
    best = tl.full([BLOCK_N, BLOCK_V], float("inf"), tl.float32)
    starts = tl.zeros([BLOCK_N, BLOCK_V], tl.int32)
    second = best
    for start in range(0, num_codes, BLOCK_V):
        # Past the end, the last code is read again: a tie that its lower index wins.
        indices = tl.minimum(start + columns, num_codes - 1)
        code_rows = codebook + indices.to(tl.int64)[None, :] * D
        scores = _scores(x_rows, x_tile, code_rows, tl.load(half_norms + indices), D, BLOCK_D, PRECISION)
        if DOUBTS:  # a NaN keeps `second` NaN; the last code must not be its own second
            scores = tl.where((start + columns < num_codes)[None, :], scores, float("inf"))
            worse = tl.maximum(best, scores, propagate_nan=tl.PropagateNan.ALL)
            second = tl.minimum(second, worse, propagate_nan=tl.PropagateNan.ALL)
            nearer = scores < best
        else:
            nearer = (best == best) & ~(scores >= best)
        best = tl.where(nearer, scores, best)
        starts = tl.where(nearer, start, starts)
    index = tl.minimum(starts + columns[None, :], num_codes - 1)
    found = _first_least(best, index, num_codes)
    tl.store(codes + rows, found.to(tl.int64), mask=inside)
    if DOUBTS:
        least = tl.min(best, axis=1)
        others = tl.where(index == found[:, None], second, best)
        unordered = tl.max((second != second).to(tl.int32), axis=1) > 0
        norm = _norms(x_rows, D, BLOCK_D)
        in_doubt = inside & (unordered | ~(tl.min(others, axis=1) - least > _margin(norm, tl.load(largest), D)))
        position = tl.cumsum(in_doubt.to(tl.int32), axis=0) - 1
        listed = tl.atomic_add(count, tl.sum(in_doubt.to(tl.int64), axis=0))
        tl.store(doubtful + listed + position, rows, mask=in_doubt)


@triton.jit
def _norms(x_rows, D: tl.constexpr, BLOCK_D: tl.constexpr):
    squares = tl.zeros([x_rows.shape[0]], tl.float32)
    for first in range(0, D, BLOCK_D):
        part = first + tl.arange(0, BLOCK_D)[None, :]
        tile = tl.load(x_rows + part, mask=part < D, other=0.0)
        squares += tl.sum(tile * tile, axis=1)
    return tl.sqrt(squares)


@triton.jit
def _margin(norm, largest_half_norm, D: tl.constexpr):
    """Return twice the largest error of a tf32x3 score: two scores with a larger gap are ordered as in float64.

    With u = 2^-24, by ||x|| ||e|| >= sum |x_i e_i|: three truncated products leave out at most 3 · 2^-20 = 48 u of each
    product; tensor cores truncate when they add, 9 terms of 2 u each 8 products, in 3 passes: 6.75 d u. Half a norm is
    float64 rounded, and the difference is rounded: 2 u of either.
    """
    largest = tl.sqrt(2 * largest_half_norm)
    return largest * (norm * (8 * D + 64) + 2 * largest) * (2.0**-23)


@triton.jit
def _rank_again(
    x, codebook, half_norms, codes, doubtful, count, num_codes,
    D: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Compute the codes of ambiguous vectors by float64 scores."""
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    total = tl.load(count)
    if first >= total:
        return
    listed = first + tl.arange(0, BLOCK_N)
    rows = tl.load(doubtful + tl.minimum(listed, total - 1))
    x_rows = x + rows[:, None] * D
    components = tl.arange(0, BLOCK_D)
    x_tile = tl.load(x_rows + components[None, :], mask=components[None, :] < D, other=0.0).to(tl.float64)
    columns = tl.arange(0, BLOCK_V)
    best = tl.full([BLOCK_N, BLOCK_V], float("inf"), tl.float64)
    starts = tl.zeros([BLOCK_N, BLOCK_V], tl.int32)
    for start in range(0, num_codes, BLOCK_V):
        indices = tl.minimum(start + columns, num_codes - 1)
        code_rows = codebook + indices.to(tl.int64)[None, :] * D
        scores = _scores(x_rows, x_tile, code_rows, tl.load(half_norms + indices), D, BLOCK_D, "ieee")
        nearer = (best == best) & ~(scores >= best)
        best = tl.where(nearer, scores, best)
        starts = tl.where(nearer, start, starts)
    found = _first_least(best, tl.minimum(starts + columns[None, :], num_codes - 1), num_codes)
    tl.store(codes + rows, found.to(tl.int64), mask=listed < total)
