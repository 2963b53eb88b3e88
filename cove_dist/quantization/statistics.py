"""Weights of vectors, and per-code statistics of a replica as one flat buffer to sum over replicas.

Shapes: ``n`` vectors, ``v`` codes, ``d`` components.
"""

from __future__ import annotations

import torch

from cove_dist.quantization.scatter import add_rows


def code_statistics(
    vectors: torch.Tensor, weights: torch.Tensor | None, codes: torch.Tensor, size: int
) -> torch.Tensor:
    """Return the weighted sum of the vectors of each code, and the sum of their weights.

    Args:
        vectors: Vectors ``[n, d]``.
        weights: Weights ``[n]``; None: all 1.
        codes: Codes int64 ``[n]``, below ``size``.
        size: Number of codes v.

    Returns:
        Flat buffer ``[v * (d + 1)]``; see `sums_and_weights`.
    """
    flat = vectors.new_zeros(size * (vectors.shape[1] + 1))
    sums, totals = sums_and_weights(flat, size)
    weights = None if weights is None else weights.to(vectors.dtype)
    add_rows(sums, codes, vectors if weights is None else vectors * weights.unsqueeze(1))
    totals.index_add_(0, codes, torch.ones_like(vectors[:, 0]) if weights is None else weights)
    return flat


def sums_and_weights(flat: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return views of a flat buffer: sums ``[v, d]`` and weights ``[v]``."""
    split = len(flat) - size
    return flat[:split].view(size, -1), flat[split:]


def occurrences(
    size: int, counts: torch.Tensor | None, fuse_only: torch.Tensor | None, device: torch.device
) -> torch.Tensor | None:
    """Return the weight of each vector in loss and statistics.

    Args:
        size: Number of vectors n.
        counts: Counts, integer or bool ``[n]``; None: all 1.
        fuse_only: Mask bool ``[n]`` of vectors of weight 0; None: no such vectors.
        device: Device of the vectors.

    Returns:
        Weights int64 ``[n]``, or None if all are 1.
    """
    if fuse_only is None:
        return None if counts is None else counts.long()
    weights = torch.ones(size, dtype=torch.int64, device=device) if counts is None else counts.long()
    return weights.masked_fill(fuse_only.bool(), 0)


def shares(weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Normalize weights to sum 1; all zeros stay zeros, so that an empty batch has loss 0."""
    return weights.to(dtype) / weights.sum().clamp(min=1)
