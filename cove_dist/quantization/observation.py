"""The vectors that a quantizer saw, kept for what its codebooks need between steps.

Shapes: ``N`` vectors, ``n`` distinct ones, ``d`` components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Observation(NamedTuple):
    """The input of one training pass, without its graph.

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
    counts = torch.cat(
        [
            torch.ones(len(seen.vectors), dtype=torch.int64, device=vectors.device)
            if seen.counts is None
            else seen.counts
            for seen in observations
        ]
    )
    if any(seen.ids is None for seen in observations):
        vectors, inverse = torch.unique(vectors, dim=0, return_inverse=True)
    else:
        distinct, inverse = torch.unique(torch.cat([seen.ids for seen in observations]), return_inverse=True)
        places = torch.arange(len(inverse), device=inverse.device)
        last = torch.zeros_like(distinct).scatter_reduce_(0, inverse, places, "amax")
        vectors = vectors.index_select(0, last)
    total = counts.new_zeros(len(vectors)).index_add_(0, inverse, counts)
    return vectors[total > 0], total[total > 0]
