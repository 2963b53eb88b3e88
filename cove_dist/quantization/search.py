"""Exact nearest-code search with bounded memory (Eq. 1)."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Literal

import torch
from torch.nn import functional

from cove_dist.quantization import triton_support

Search = Literal["auto", "chunked", "compiled", "faiss", "triton", "triton_tf32x3"]

# Rows and row lengths of the codebook are padded to a multiple of this, so that every code is computed by whole tiles
# of the matrix kernel from equally aligned memory: otherwise scores of equal codebook rows could round differently.
TILE = 16
WORKSPACE_CPU = 1 << 20  # scores in memory, per thread: they should fit the cache
ROWS_CPU = 64  # vectors of a chunk and thread are a multiple: of 65, the search takes 1.4 times as long as of 64
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
    return _chunked(x, codebook, _compiled() if backend == "compiled" else _best_of_chunk)


def is_available(backend: Search, device_type: str) -> bool:
    """Return whether a device has a search of float32 vectors, and the package of the search is installed."""
    if backend == "faiss":
        return device_type == "cpu" and importlib.util.find_spec("faiss") is not None
    return not backend.startswith("triton") or triton_support.runs_on(device_type)


def nearest_with_distance(x: torch.Tensor, codebook: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the nearest code ``[N]`` and the squared distance from it ``[N]``."""
    codes = nearest_code(x, codebook)
    return codes, (x - codebook.index_select(0, codes)).square().sum(dim=1)


def _chunked(x: torch.Tensor, codebook: torch.Tensor, best: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    num_codes, dim = codebook.shape
    width = _whole_tiles(num_codes)
    padded = codebook.new_zeros(width, _whole_tiles(dim))[:, :dim]
    padded[:num_codes] = codebook
    # x·e - ||e||²/2 is largest where ||x - e||² is smallest; padding is never the largest.
    offsets = codebook.new_full((width, 1), -torch.inf)
    offsets[:num_codes] = codebook.square().sum(dim=1, keepdim=True) / -2

    on_cpu = x.device.type == "cpu"
    parts = torch.get_num_threads() if on_cpu else 1  # of a chunk, one for each thread
    rows = parts * _rows_per_part(width) if on_cpu else max(1, WORKSPACE_ACCELERATOR // width)
    workspace = x.new_empty(min(rows, len(x)) * width)
    codes = torch.empty(len(x), dtype=torch.int64, device=x.device)
    if len(x) == 0:
        return codes
    for chunk, out in zip(x.split(rows), codes.split(rows), strict=True):
        whole = parts if len(chunk) % parts == 0 else 1
        scores = workspace[: len(chunk) * width].view(whole, width, -1)
        torch.baddbmm(offsets, padded.expand(whole, -1, -1), chunk.view(whole, -1, dim).mT, out=scores)
        out.copy_(best(scores).view(-1))
    return codes.clamp_(max=num_codes - 1)  # padding times infinity is NaN, which `argmax` prefers


def _rows_per_part(width: int) -> int:
    return max(1, WORKSPACE_CPU // width // ROWS_CPU) * ROWS_CPU


def _whole_tiles(size: int) -> int:
    return -(-size // TILE) * TILE


def _best_of_chunk(scores: torch.Tensor) -> torch.Tensor:
    """Return the ``argmax`` over codes ``[parts, n]`` of scores ``[parts, v, n]``, the lowest index at a tie.

    NaN counts as the largest score. On CPU this is max pooling of images of ``v x 1`` pixels with n channels, whose
    memory is channels-last: its kernel is vectorized over channels, which makes it several times faster than `argmax`.
    """
    if scores.device.type != "cpu":
        return scores.argmax(dim=1)
    images = scores.unsqueeze(2).permute(0, 3, 1, 2)
    best, codes = functional.max_pool2d(images, (scores.shape[1], 1), return_indices=True)
    return scores.argmax(dim=1) if best.isnan().any() else codes  # of several NaN pooling takes the last


@functools.cache
def _compiled() -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.compile(_best_of_chunk, dynamic=True)


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
