"""How much vectors weigh, and what a replica knows of those of each code, as one flat buffer to sum over replicas.

Shapes: ``n`` vectors, ``v`` codes, ``d`` components.
"""

from __future__ import annotations

import torch

from cove_dist.quantization.scatter import add_rows


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
    add_rows(sums, codes, vectors if weights is None else vectors * weights.unsqueeze(1))
    mass.index_add_(0, codes, torch.ones_like(vectors[:, 0]) if weights is None else weights)
    return flat


def sums_and_mass(flat: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views of a flat buffer: sums ``[v, d]`` and mass ``[v]``."""
    split = len(flat) - size
    return flat[:split].view(size, -1), flat[split:]


def occurrences(
    size: int, counts: torch.Tensor | None, fuse_only: torch.Tensor | None, device: torch.device
) -> torch.Tensor | None:
    """How much each vector weighs in loss and statistics.

    Args:
        size: n.
        counts: integer or bool ``[n]``; None: 1 each.
        fuse_only: bool ``[n]``, vectors that weigh nothing; None: none.
        device: of the vectors.

    Returns:
        int64 ``[n]``, or None where all weigh 1.
    """
    if fuse_only is None:
        return None if counts is None else counts.long()
    weights = torch.ones(size, dtype=torch.int64, device=device) if counts is None else counts.long()
    return weights.masked_fill(fuse_only.bool(), 0)


def shares(weights: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Weights that sum to 1, or to 0 where there is nothing to weigh: an empty batch has loss 0."""
    return weights.to(dtype) / weights.sum().clamp(min=1)
