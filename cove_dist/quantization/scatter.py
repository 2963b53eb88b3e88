"""Sums of vectors by code, with the fastest method of the device."""

from __future__ import annotations

import torch

from cove_dist.quantization import triton_support


def add_rows(out: torch.Tensor, codes: torch.Tensor, rows: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Add ``alpha * rows[n]`` to ``out[codes[n]]`` in place, for every n.

    Float32 on CUDA uses Triton if it is installed (see `triton_scatter`): in a fixed order under
    ``torch.use_deterministic_algorithms(True)``, otherwise with atomic operations. Other inputs use
    `torch.Tensor.index_add_`.

    Args:
        out: Contiguous tensor ``[v, d]``.
        codes: Codes int64 ``[N]``, below v.
        rows: Vectors ``[N, d]``, of the dtype of ``out``.
        alpha: Factor of the rows.

    Returns:
        ``out``.
    """
    if not triton_support.usable(out):
        return out.index_add_(0, codes, rows, alpha=alpha)
    from cove_dist.quantization import triton_scatter

    method: triton_scatter.Method = "sorted" if torch.are_deterministic_algorithms_enabled() else "atomic"
    return triton_scatter.add_rows(out, codes, rows, alpha, method)
