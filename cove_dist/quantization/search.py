"""Exact nearest-code search with bounded memory (Eq. 1)."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

import torch

from cove_dist.quantization import triton_support

Search = Literal["auto", "chunked", "compiled", "faiss", "triton", "triton_tf32x3"]

# A block's minimum comes from a vectorized `amin`, about ten times faster than `argmin` over the same scores. A narrow
# codebook is one block, a multiple of the tile of x86 matrix kernels wide: partial tiles round differently, and equal
# codebook rows would get unequal scores.
BLOCK = 64
TILE = 48
NARROW = 8 * TILE
WORKSPACE_CPU = 1 << 20  # maximum number of scores in memory; on CPU they should fit the cache
WORKSPACE_ACCELERATOR = 1 << 26


@torch.no_grad()
def nearest_code(x: torch.Tensor, codebook: torch.Tensor, backend: Search = "auto") -> torch.Tensor:
    """Find ``argmin_k ||x_n - e_k||²`` for every row without materializing the ``[N, v]`` distances.

    Args:
        x: Vectors, float ``[N, d]``.
        codebook: Codebook ``[v, d]``, of the same dtype.
        backend: "chunked": matmul over chunks of rows; the lowest index wins a tie. "compiled": the same with
            `torch.compile`. "faiss": FAISS's flat index, float32 on CPU; codes at equal distances up to rounding may
            be chosen differently. "triton": a kernel for float32 on CUDA; the lowest index wins a tie.
            "triton_tf32x3": the same with tensor cores, and float64 for ambiguous vectors (see `triton_search`).
            "auto": triton if available, otherwise chunked, the fastest on CPU at every size of
            `benchmarks/quantizer.py`.

    Returns:
        Codes int64 ``[N]``.

    Raises:
        ValueError: The backend does not support the dtype or device.
        ModuleNotFoundError: FAISS or Triton is not installed.
    """
    if backend == "faiss":
        return _faiss(x, codebook)
    if backend.startswith("triton") or (backend == "auto" and triton_support.usable(x)):
        return _triton(x, codebook, backend)
    return _chunked(x, codebook, _compiled() if backend == "compiled" else _nearest_of_chunk)


def nearest_with_distance(x: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest code ``[N]`` and the squared distance from it ``[N]``."""
    codes = nearest_code(x, codebook)
    return codes, (x - codebook.index_select(0, codes)).square().sum(dim=1)


def _chunked(
    x: torch.Tensor, codebook: torch.Tensor, minima: Callable[[torch.Tensor, int], torch.Tensor]
) -> torch.Tensor:
    num_codes = len(codebook)
    block_width = BLOCK if num_codes > NARROW else TILE * -(-num_codes // TILE)
    width = -(-num_codes // block_width) * block_width
    padded = codebook.new_zeros(width, codebook.shape[1])
    padded[:num_codes] = codebook
    # ||x - e||² and ||e||²/2 - x·e have the same minimizer; padding is never the minimum.
    half_norms = codebook.new_full((width,), torch.inf)
    half_norms[:num_codes] = codebook.square().sum(dim=1) / 2

    rows = max(1, (WORKSPACE_CPU if x.device.type == "cpu" else WORKSPACE_ACCELERATOR) // width)
    workspace = x.new_empty(min(rows, len(x)), width)
    codes = torch.empty(len(x), dtype=torch.int64, device=x.device)
    for chunk, out in zip(x.split(rows), codes.split(rows), strict=True):
        scores = torch.addmm(half_norms, chunk, padded.t(), alpha=-1, out=workspace[: len(chunk)])
        out.copy_(minima(scores, block_width))
    return codes.clamp_(max=num_codes - 1)  # padding times infinity is NaN, which `argmin` prefers


def _nearest_of_chunk(scores: torch.Tensor, block_width: int) -> torch.Tensor:
    """Return the ``argmin`` of each row of ``[n, width]``: the block with the minimum, then the index within it."""
    blocks = scores.shape[1] // block_width
    if blocks == 1:
        return scores.argmin(dim=1)
    block = scores.view(-1, blocks, block_width).amin(dim=2).argmin(dim=1)
    rows = torch.arange(len(scores), device=scores.device) * blocks + block
    within = scores.view(-1, block_width).index_select(0, rows).argmin(dim=1)
    return torch.add(within, block, alpha=block_width)


@functools.cache
def _compiled() -> Callable[[torch.Tensor, int], torch.Tensor]:
    return torch.compile(_nearest_of_chunk, dynamic=True)


def _faiss(x: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    if x.dtype != torch.float32 or x.device.type != "cpu":
        raise ValueError(f"x is {x.dtype} on {x.device}: the search 'faiss' takes float32 on cpu; use 'chunked'")
    try:
        import faiss
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("search = 'faiss': not installed. pip install faiss-cpu, or use 'auto'") from error
    index = faiss.IndexFlatL2(codebook.shape[1])
    index.add(codebook.numpy(force=True))
    return torch.from_numpy(index.search(x.numpy(force=True), 1)[1].squeeze(1))


def _triton(x: torch.Tensor, codebook: torch.Tensor, backend: Search) -> torch.Tensor:
    if backend != "auto":
        triton_support.require(x, f"search = {backend!r}", "chunked")
    from cove_dist.quantization import triton_search

    return triton_search.nearest_code(x, codebook, "tf32x3" if backend == "triton_tf32x3" else "ieee")
