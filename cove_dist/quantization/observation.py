"""The vectors that a quantizer saw, kept for what its codebooks need between steps.

Shapes: ``N`` vectors, ``n`` distinct ones, ``d`` components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from cove_dist.quantization.replicas import generator


class Observation(NamedTuple):
    """The input of one training pass: a copy, without its graph.

    Attributes:
        vectors: ``[N, d]``.
        counts: int64 ``[N]`` or None, as given to the quantizer.
        ids: int64 ``[N]`` or None, as given to the quantizer.
    """

    vectors: torch.Tensor
    counts: torch.Tensor | None
    ids: torch.Tensor | None


def distinct_vectors(observations: Sequence[Observation]) -> tuple[torch.Tensor, torch.Tensor]:
    """Every vector once, with how often it occurred; of an id the vector seen last. Without ids equal vectors are one.

    Args:
        observations: oldest first, at least one.

    Returns:
        ``[n, d]`` and int64 ``[n]``; vectors that count 0 are left out.
    """
    vectors = torch.cat([seen.vectors for seen in observations])
    counts = torch.cat([_counts(seen) for seen in observations])
    ids = [seen.ids for seen in observations if seen.ids is not None]
    keys = torch.cat(ids) if len(ids) == len(observations) else _fingerprints(vectors)
    occurs = counts > 0
    vectors, counts = vectors[occurs], counts[occurs]
    distinct, inverse = torch.unique(keys[occurs], return_inverse=True)
    places = torch.arange(len(inverse), device=inverse.device)
    last = torch.zeros_like(distinct).scatter_reduce_(0, inverse, places, "amax")
    return vectors.index_select(0, last), torch.zeros_like(distinct).index_add_(0, inverse, counts)


def _counts(seen: Observation) -> torch.Tensor:
    ones = torch.ones(len(seen.vectors), dtype=torch.int64, device=seen.vectors.device)
    return ones if seen.counts is None else seen.counts


def _fingerprints(vectors: torch.Tensor) -> torch.Tensor:
    """An int64 hash of each row: ``torch.unique(dim=0)`` compares row by row, one after another."""
    bits = (vectors + 0.0).view(torch.int64 if vectors.dtype == torch.float64 else torch.int32)  # -0.0 becomes 0.0
    random = generator(vectors.device, vectors.shape[1])
    factors = torch.randint(-(2**63), 2**63 - 1, bits.shape[1:], device=vectors.device, generator=random) | 1
    mixed = bits * factors  # int64 arithmetic wraps
    return (mixed ^ (mixed >> 32)).sum(dim=1)  # without the shift two flipped signs would cancel
