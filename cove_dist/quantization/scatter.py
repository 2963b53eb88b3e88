"""Sums of vectors by code, by the fastest way that the device has."""

from __future__ import annotations

import torch

from cove_dist.quantization import triton_support


def add_rows(out: torch.Tensor, codes: torch.Tensor, rows: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    """Add ``alpha * rows[n]`` to ``out[codes[n]]`` in place, for every n.

    Float32 on CUDA goes through Triton where that is installed (see `triton_scatter`): in a fixed order under
    ``torch.use_deterministic_algorithms(True)``, else by atomic operations. All else is `torch.Tensor.index_add_`.

    Args:
        out: ``[v, d]``, contiguous.
        codes: int64 ``[N]``, below v.
        rows: ``[N, d]``, of the dtype of ``out``.
        alpha: factor of the rows.

    Returns:
        ``out``.
    """
    if not triton_support.usable(out):
        return out.index_add_(0, codes, rows, alpha=alpha)
    from cove_dist.quantization import triton_scatter

    method: triton_scatter.Method = "sorted" if torch.are_deterministic_algorithms_enabled() else "atomic"
    return triton_scatter.add_rows(out, codes, rows, alpha, method)
