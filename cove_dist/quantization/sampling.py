"""Sampling from the vectors of all replicas, with the same result on every replica.

Shapes: ``n`` vectors of this replica, ``m`` vectors drawn, ``d`` components.
"""

from __future__ import annotations

import torch

from cove_dist.quantization.replicas import Replicas


@torch.no_grad()
def draw_vectors(
    vectors: torch.Tensor, weights: torch.Tensor, size: int, replicas: Replicas, random: torch.Generator
) -> torch.Tensor:
    """Sample without replacement by weight: take the largest ``log(weight) + Gumbel noise`` over all replicas.

    Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006).

    Args:
        vectors: Vectors of this replica ``[n, d]``; n may differ between replicas.
        weights: Non-negative weights ``[n]``; a vector of weight 0 is never drawn.
        size: Maximum number of vectors to draw, at least 1.
        replicas: The replicas, all of which call this function.
        random: Random generator of this replica, different on each.

    Returns:
        Vectors ``[m, d]``, the same on every replica, in order of the draw. ``m`` is ``size``, or the number of vectors
        of positive weight if that is less.
    """
    noise = -torch.empty_like(weights, dtype=torch.float64).exponential_(generator=random).log()
    keys = (weights.double().log() + noise).topk(min(size, len(weights)))
    offered = keys.values.new_zeros(replicas.world_size, size)
    offered[replicas.rank] = -torch.inf
    offered[replicas.rank, : len(keys.values)] = keys.values
    replicas.all_reduce(offered)

    chosen = offered.flatten().topk(size)
    places = chosen.indices[chosen.values > -torch.inf]
    drawn = vectors.new_zeros(len(places), vectors.shape[1])
    mine = places // size == replicas.rank
    drawn[mine] = vectors.index_select(0, keys.indices[places[mine] % size])
    replicas.all_reduce(drawn)
    return drawn
