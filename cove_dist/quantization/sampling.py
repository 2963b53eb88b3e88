"""Draw vectors from those that all replicas hold together; every replica gets the same ones.

Shapes: ``n`` vectors of this replica, ``m`` vectors drawn, ``d`` components.
"""

from __future__ import annotations

import torch

from cove_dist.quantization.replicas import Replicas


@torch.no_grad()
def draw_vectors(
    vectors: torch.Tensor, weights: torch.Tensor, size: int, replicas: Replicas, random: torch.Generator
) -> torch.Tensor:
    """Draw without replacement, with odds by weight: the largest of ``log(weight) + Gumbel noise`` over all replicas.

    Efraimidis and Spirakis, "Weighted random sampling with a reservoir" (2006).

    Args:
        vectors: ``[n, d]`` of this replica; the replicas' n may differ.
        weights: ``[n]``, not negative; a vector of weight 0 is never drawn.
        size: how many to draw at most, at least 1.
        replicas: all of them call.
        random: of this replica, another on each.

    Returns:
        ``[m, d]``, the same on every replica, in order of the draw. ``m`` is ``size``, or the number of vectors with a
        weight where that is less.
    """
    noise = -torch.empty_like(weights, dtype=torch.float64).exponential_(generator=random).log()
    keys = (weights.double().log() + noise).topk(min(size, len(weights)))
    offered = keys.values.new_zeros(replicas.world_size, size)
    offered[replicas.rank] = -torch.inf
    offered[replicas.rank, : len(keys.values)] = keys.values
    replicas.add_up(offered)

    chosen = offered.flatten().topk(size)
    places = chosen.indices[chosen.values > -torch.inf]
    drawn = vectors.new_zeros(len(places), vectors.shape[1])
    mine = places // size == replicas.rank
    drawn[mine] = vectors.index_select(0, keys.indices[places[mine] % size])
    replicas.add_up(drawn)
    return drawn
