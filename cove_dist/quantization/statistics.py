"""What a replica knows of the vectors of each code, as one flat buffer that is summed over replicas at once.

Shapes: ``n`` vectors, ``v`` codes, ``d`` components.
"""

from __future__ import annotations

import torch


def code_statistics(
    vectors: torch.Tensor, weights: torch.Tensor | None, codes: torch.Tensor, size: int
) -> torch.Tensor:
    """The weighted sum of the vectors of each code, and the sum of their weights.

    Args:
        vectors: ``[n, d]``.
        weights: ``[n]``; None: 1 each.
        codes: int64 ``[n]``, below ``size``.
        size: v.

    Returns:
        ``[v * (d + 1)]``: see `sums_and_mass`.
    """
    flat = vectors.new_zeros(size * (vectors.shape[1] + 1))
    sums, mass = sums_and_mass(flat, size)
    weights = None if weights is None else weights.to(vectors.dtype)
    sums.index_add_(0, codes, vectors if weights is None else vectors * weights.unsqueeze(1))
    mass.index_add_(0, codes, torch.ones_like(vectors[:, 0]) if weights is None else weights)
    return flat


def sums_and_mass(flat: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of a flat buffer: sums ``[v, d]`` and mass ``[v]``."""
    split = len(flat) - size
    return flat[:split].view(size, -1), flat[split:]
