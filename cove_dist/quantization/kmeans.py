"""k-means over vectors that are spread over replicas.

Shapes: ``n`` vectors of this replica, ``v`` centres, ``d`` components.
"""

from __future__ import annotations

import torch

from cove_dist.quantization.replicas import Replicas
from cove_dist.quantization.sampling import draw_vectors
from cove_dist.quantization.search import nearest_with_distance
from cove_dist.quantization.statistics import code_statistics, sums_and_mass

# A round of the start draws this share of the centres there are, one at least: up to 16 centres it is k-means++ itself.
_AT_ONCE = 1 / 8


@torch.no_grad()
def kmeans(
    vectors: torch.Tensor,
    weights: torch.Tensor,
    size: int,
    replicas: Replicas,
    random: torch.Generator,
    iterations: int = 20,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Lloyd's k-means from centres that lie apart.

    An iteration all-reduces one flat buffer. A centre that loses all its vectors is drawn anew, with odds by squared
    distance from the nearest centre.

    Args:
        vectors: ``[n, d]`` of this replica; the replicas' n may differ.
        weights: ``[n]``, of the dtype of the vectors, not negative.
        size: v.
        replicas: all of them call.
        random: of this replica.
        iterations: of Lloyd's algorithm, at least 1.

    Returns:
        Centres ``[m, d]`` and the weight of what was nearest to each, ``[m]``, the same on every replica. ``m`` is v,
        or less where fewer distinct vectors have a weight.
    """
    centres = draw_apart(vectors, weights, size, replicas, random)
    mass = centres.new_zeros(len(centres))
    for _ in range(iterations if len(centres) else 0):
        codes, distances = nearest_with_distance(vectors, centres)
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


def mass_of_centres(
    vectors: torch.Tensor, weights: torch.Tensor, centres: torch.Tensor, replicas: Replicas
) -> torch.Tensor:
    """The weight ``[v]`` of what is nearest to each of ``centres [v, d]``. Further arguments as of `kmeans`."""
    codes, _ = nearest_with_distance(vectors, centres)
    flat = code_statistics(vectors, weights, codes, len(centres))
    replicas.add_up(flat)
    return sums_and_mass(flat, len(centres))[1]


def draw_apart(
    vectors: torch.Tensor, weights: torch.Tensor, size: int, replicas: Replicas, random: torch.Generator
) -> torch.Tensor:
    """Distinct vectors, each round with odds by weight times squared distance from the nearest drawn before.

    Arthur and Vassilvitskii, "k-means++" (2007); several in a round as by Bahmani et al., "Scalable k-means++" (2012).
    All rounds together search as much as one iteration of Lloyd's algorithm.

    Args: as of `kmeans`.

    Returns:
        ``[m, d]``, the same on every replica.
    """
    drawn = latest = draw_vectors(vectors, weights, 1, replicas, random)
    distances = torch.full_like(weights, torch.inf)
    while len(latest) and len(drawn) < size:
        distances = torch.minimum(distances, nearest_with_distance(vectors, latest)[1])
        wanted = min(max(1, int(len(drawn) * _AT_ONCE)), size - len(drawn))
        latest = draw_vectors(vectors, weights * distances, wanted, replicas, random)
        drawn = torch.cat([drawn, latest])
    return drawn
