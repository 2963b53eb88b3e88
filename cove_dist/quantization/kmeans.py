"""Lloyd's k-means over vectors that are spread over replicas.

Shapes: ``n`` vectors of this replica, ``v`` centres, ``d`` components.
"""

from __future__ import annotations

import torch

from cove_dist.quantization.replicas import Replicas
from cove_dist.quantization.sampling import draw_vectors
from cove_dist.quantization.search import nearest_code
from cove_dist.quantization.statistics import code_statistics, sums_and_mass


@torch.no_grad()
def kmeans(
    vectors: torch.Tensor,
    weights: torch.Tensor,
    size: int,
    replicas: Replicas,
    random: torch.Generator,
    iterations: int = 20,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres that start as drawn vectors and move to the mean of what is nearest to them.

    An iteration all-reduces one flat buffer. A centre that loses all its vectors is drawn anew, with odds by squared
    distance from the nearest centre.

    Args:
        vectors: ``[n, d]`` of this replica; the replicas' n may differ.
        weights: ``[n]``, of the dtype of the vectors, not negative.
        size: v.
        replicas: all of them call.
        random: of this replica.
        iterations: of Lloyd's algorithm.

    Returns:
        Centres ``[m, d]`` and the weight of what was nearest to each, ``[m]``, the same on every replica. ``m`` is v,
        or less where fewer vectors have a weight.
    """
    centres = draw_vectors(vectors, weights, size, replicas, random)
    mass = centres.new_zeros(len(centres))
    for _ in range(iterations if len(centres) else 0):
        codes = nearest_code(vectors, centres)
        distances = (vectors - centres.index_select(0, codes)).square().sum(dim=1)
        flat = code_statistics(vectors, weights, codes, len(centres))
        replicas.add_up(flat)
        sums, mass = sums_and_mass(flat, len(centres))
        live = mass > 0
        centres[live] = sums[live] / mass[live].unsqueeze(1)
        empty = (~live).nonzero().flatten()
        if len(empty):
            drawn = draw_vectors(vectors, weights * distances, len(empty), replicas, random)
            centres[empty[: len(drawn)]] = drawn
    return centres, mass
