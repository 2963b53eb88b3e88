"""k-means over vectors distributed over replicas.

Shapes: ``n`` vectors of this replica, ``v`` centres, ``d`` components.
"""

from __future__ import annotations

import torch

from cove_dist.quantization.replicas import Replicas
from cove_dist.quantization.sampling import draw_vectors
from cove_dist.quantization.search import nearest_with_distance
from cove_dist.quantization.statistics import code_statistics, sums_and_weights

# A round of the initialization draws this share of the centres, at least one: up to 16 centres it is exact k-means++.
_AT_ONCE = 1 / 8
_ITERATIONS = 20
_SUBSPACES, _ITERATIONS_IN_ONE = 10, 5


@torch.no_grad()
def kmeans(
    vectors: torch.Tensor,
    weights: torch.Tensor,
    size: int,
    replicas: Replicas,
    random: torch.Generator,
    iterations: int = _ITERATIONS,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run Lloyd's k-means from k-means++ centres.

    An iteration all-reduces one flat buffer. A centre that loses all its vectors is drawn again, with probabilities
    proportional to squared distances from the nearest centre.

    Args:
        vectors: Vectors of this replica ``[n, d]``; n may differ between replicas.
        weights: Non-negative weights ``[n]``, of the dtype of the vectors.
        size: Number of centres v.
        replicas: The replicas, all of which call this function.
        random: Random generator of this replica.
        iterations: Iterations of Lloyd's algorithm, at least 1.

    Returns:
        Centres ``[m, d]`` and the total weight of each centre's vectors ``[m]``, the same on every replica. ``m`` is v,
        or the number of distinct vectors of positive weight if that is less.
    """
    centres = kmeans_plus_plus(vectors, weights, size, replicas, random)
    return _lloyd(vectors, weights, centres, replicas, random, iterations)


@torch.no_grad()
def best_kmeans(
    vectors: torch.Tensor, weights: torch.Tensor, size: int, replicas: Replicas, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run k-means from k-means++ centres and from those of `subspace_centres`; return the better result.

    k-means++ finds clusters that are apart. In many dimensions without such clusters, as in embeddings and even more
    in their residuals, it leaves many centres with a single vector.

    Args and returns: As of `kmeans`.
    """
    found = [kmeans(vectors, weights, size, replicas, random)]
    starts = subspace_centres(vectors, weights, size, replicas, random)
    found.append(_lloyd(vectors, weights, starts, replicas, random, _ITERATIONS))
    inertias = torch.full((2,), torch.inf, dtype=torch.float64, device=vectors.device)
    for number, (centres, _) in enumerate(found):
        if len(centres):
            inertias[number] = (nearest_with_distance(vectors, centres)[1] * weights).double().sum()
    replicas.all_reduce(inertias)
    return found[int(inertias.nan_to_num(torch.inf).argmin())]


def subspace_centres(
    vectors: torch.Tensor, weights: torch.Tensor, size: int, replicas: Replicas, random: torch.Generator
) -> torch.Tensor:
    """Find centres in ever more of the principal directions, each time from those before, as FAISS does.

    ``ProgressiveDimClustering`` of FAISS (Douze et al., "The Faiss library", 2024).

    Args: As in `kmeans`.

    Returns:
        Centres ``[m, d]``; none if a product of components is not finite, as when training diverges.
    """
    dim = vectors.shape[1]
    moments = (vectors * weights.unsqueeze(1)).T @ vectors
    replicas.all_reduce(moments)
    if not moments.isfinite().all():
        return vectors[:0]
    basis = torch.linalg.eigh(moments)[1].flip(1)
    if replicas.rank != 0:
        basis.zero_()
    replicas.all_reduce(basis)  # the same on every replica, to the bit
    rotated = vectors @ basis
    centres = draw_vectors(rotated, weights, size, replicas, random)
    for step in range(1, _SUBSPACES + 1):
        of_step = round(dim ** (step / _SUBSPACES))
        if step == 1:
            centres[:, of_step:] = 0
        part = centres[:, :of_step].contiguous()
        inside = rotated[:, :of_step].contiguous()
        centres[:, :of_step] = _lloyd(inside, weights, part, replicas, random, _ITERATIONS_IN_ONE)[0]
    return centres @ basis.T


def _lloyd(
    vectors: torch.Tensor,
    weights: torch.Tensor,
    centres: torch.Tensor,
    replicas: Replicas,
    random: torch.Generator,
    iterations: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run Lloyd's algorithm from ``centres [m, d]``, which are changed; return as `kmeans` does."""
    centre_weights = centres.new_zeros(len(centres))
    for _ in range(iterations if len(centres) else 0):
        codes, distances = nearest_with_distance(vectors, centres)
        flat = code_statistics(vectors, weights, codes, len(centres))
        replicas.all_reduce(flat)
        sums, centre_weights = sums_and_weights(flat, len(centres))
        live = centre_weights > 0
        centres[live] = sums[live] / centre_weights[live].unsqueeze(1)
        empty = (~live).nonzero().flatten()
        if len(empty):
            drawn = draw_vectors(vectors, weights * distances, len(empty), replicas, random)
            centres[empty[: len(drawn)]] = drawn
    return centres, centre_weights


def weights_of_centres(
    vectors: torch.Tensor, weights: torch.Tensor, centres: torch.Tensor, replicas: Replicas
) -> torch.Tensor:
    """Return the total weight ``[v]`` of the vectors nearest to each of ``centres [v, d]``; see `kmeans`."""
    codes, _ = nearest_with_distance(vectors, centres)
    flat = code_statistics(vectors, weights, codes, len(centres))
    replicas.all_reduce(flat)
    return sums_and_weights(flat, len(centres))[1]


def kmeans_plus_plus(
    vectors: torch.Tensor, weights: torch.Tensor, size: int, replicas: Replicas, random: torch.Generator
) -> torch.Tensor:
    """Draw distinct vectors with probabilities proportional to weight times squared distance from earlier ones.

    Arthur and Vassilvitskii, "k-means++" (2007); several per round as in Bahmani et al., "Scalable k-means++" (2012).
    All rounds together cost as much as one iteration of Lloyd's algorithm.

    Args: As in `kmeans`.

    Returns:
        Vectors ``[m, d]``, the same on every replica.
    """
    drawn = latest = draw_vectors(vectors, weights, 1, replicas, random)
    distances = torch.full_like(weights, torch.inf)
    while len(latest) and len(drawn) < size:
        distances = torch.minimum(distances, nearest_with_distance(vectors, latest)[1])
        wanted = min(max(1, int(len(drawn) * _AT_ONCE)), size - len(drawn))
        latest = draw_vectors(vectors, weights * distances, wanted, replicas, random)
        drawn = torch.cat([drawn, latest])
    return drawn
