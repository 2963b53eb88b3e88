"""k-means over replicas, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from cove_dist.quantization import kmeans as module
from cove_dist.quantization.kmeans import best_kmeans, kmeans, kmeans_plus_plus, subspace_centres
from cove_dist.quantization.replicas import ALONE, generator
from tests.unit.quantization.simulated import on_replicas

CPU = torch.device("cpu")


def clusters(count: int, each: int, dim: int = 8, spread: float = 0.003) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(count)
    centres = torch.randn(count, dim, generator=random)
    return centres, centres.repeat(each, 1) + spread * torch.randn(count * each, dim, generator=random)


def heavy_tailed() -> torch.Tensor:
    """Vectors without clusters, some of which are long: ``[2000, 32]``."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(2000, 32, generator=random) * (0.5 * torch.randn(2000, 1, generator=random)).exp()


def inertia(vectors: torch.Tensor, weights: torch.Tensor, centres: torch.Tensor) -> float:
    distances = torch.cdist(vectors.double(), centres.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return (distances.amin(dim=1).square() * weights).sum().item()


@pytest.mark.parametrize("count", [1, 5, 16])
def test_well_separated_clusters_are_recovered(count: int) -> None:
    centres, vectors = clusters(count, 40)
    for seed in range(5):
        found, mass = kmeans(vectors, torch.ones(len(vectors)), count, ALONE, generator(CPU, seed))
        apart = torch.cdist(found, centres)
        assert sorted(apart.argmin(dim=1).tolist()) == list(range(count))
        assert apart.amin(dim=1).max() < 0.1
        assert mass.tolist() == [40] * count


def test_from_the_same_start_it_ends_where_scikit_learn_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vectors, weights = torch.randn(600, 6), torch.randint(1, 6, (600,)).float()
    start = vectors[:20].clone()
    monkeypatch.setattr(module, "kmeans_plus_plus", lambda *_: start.clone())
    found, _ = kmeans(vectors, weights, 20, ALONE, generator(CPU, 0), iterations=7)
    theirs = KMeans(20, init=start.double().numpy(), n_init=1, max_iter=7, tol=0, algorithm="lloyd")
    theirs.fit(vectors.double().numpy(), sample_weight=weights.numpy())
    np.testing.assert_allclose(found.numpy(), theirs.cluster_centers_, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [10, 100])
def test_its_own_start_is_as_good_as_scikit_learns(size: int) -> None:
    """Means over 5 seeds; there k-means++ draws one centre at a time, the best of several."""
    _, vectors = clusters(60, 20, spread=0.3)
    ones = torch.ones(len(vectors))
    ours = [inertia(vectors, ones, kmeans(vectors, ones, size, ALONE, generator(CPU, seed))[0]) for seed in range(5)]
    theirs = [KMeans(size, n_init=1, max_iter=20, random_state=seed).fit(vectors).inertia_ for seed in range(5)]
    assert sum(ours) < 1.05 * sum(theirs)


def test_the_start_covers_clusters_before_it_takes_two_of_one() -> None:
    centres, vectors = clusters(16, 30, spread=1e-3)
    drawn = kmeans_plus_plus(vectors, torch.ones(len(vectors)), 16, ALONE, generator(CPU, 0))
    assert sorted(torch.cdist(drawn, centres).argmin(dim=1).tolist()) == list(range(16))


def test_replicas_that_hold_fewer_vectors_than_centres_find_what_one_would() -> None:
    _, vectors = clusters(6, 4)
    parts = vectors.split([5, 5, 9, 5])
    found = on_replicas(
        4, lambda r: kmeans(parts[r.rank], torch.ones(len(parts[r.rank])), 6, r, generator(CPU, 0, r.rank))
    )
    for here, mass in found:
        assert torch.equal(here, found[0][0])
        assert mass.tolist() == [4] * 6
    means = torch.stack([vectors[i::6].mean(dim=0) for i in range(6)])
    order = torch.cdist(means, found[0][0]).argmin(dim=1)
    torch.testing.assert_close(found[0][0][order], means)


def test_a_weight_counts_as_repetitions_and_none_as_absence() -> None:
    _, vectors = clusters(4, 10, spread=0.3)
    weights = torch.arange(40) % 5
    random = torch.randn(1000, 8) * 100  # of no weight
    padded, padding = torch.cat([vectors, random]), torch.cat([weights.float(), torch.zeros(1000)])
    found, mass = kmeans(padded, padding, 4, ALONE, generator(CPU, 3))
    repeated = vectors.repeat_interleave(weights, dim=0)
    codes = torch.cdist(repeated, found).argmin(dim=1)
    assert mass.tolist() == torch.bincount(codes, minlength=4).tolist()
    torch.testing.assert_close(found, torch.stack([repeated[codes == code].mean(dim=0) for code in range(4)]))


def test_of_fewer_distinct_vectors_than_centres_each_is_one() -> None:
    distinct = torch.randn(7, 3)
    found, mass = kmeans(distinct.repeat(50, 1), torch.ones(350), 10, ALONE, generator(CPU, 0))
    assert len(found) == 7
    assert mass.tolist() == [50] * 7
    assert torch.cdist(found, distinct).amin(dim=0).max() < 1e-3


@pytest.mark.parametrize("vectors", [torch.zeros(0, 3), torch.randn(5, 3)], ids=["no vectors", "no weights"])
def test_nothing_to_cluster(vectors: torch.Tensor) -> None:
    found, mass = kmeans(vectors, torch.zeros(len(vectors)), 4, ALONE, generator(CPU, 0))
    assert found.shape == (0, 3)
    assert mass.shape == (0,)


def test_a_centre_that_loses_its_vectors_is_drawn_again(monkeypatch: pytest.MonkeyPatch) -> None:
    centres, vectors = clusters(4, 30)
    start = torch.cat([centres[:3], torch.full((1, 8), 1e3)])
    monkeypatch.setattr(module, "kmeans_plus_plus", lambda *_: start.clone())
    found, mass = kmeans(vectors, torch.ones(len(vectors)), 4, ALONE, generator(CPU, 0))
    assert sorted(torch.cdist(found, centres).argmin(dim=1).tolist()) == list(range(4))
    assert mass.tolist() == [30] * 4


def test_the_best_of_both_starts_is_as_good_as_each_with_and_without_clusters() -> None:
    _, apart = clusters(16, 40)
    for vectors, size in ((apart, 16), (heavy_tailed(), 64)):
        ones = torch.ones(len(vectors))
        found, mass = best_kmeans(vectors, ones, size, ALONE, generator(CPU, 0))
        plain, _ = kmeans(vectors, ones, size, ALONE, generator(CPU, 0))
        share = inertia(vectors, ones, found) / inertia(vectors, ones, plain)
        assert share <= 1 + 1e-6 if vectors is apart else share < 0.995
        assert mass.sum() == len(vectors)


def test_centres_of_subspaces_leave_few_centres_with_a_single_vector() -> None:
    vectors = heavy_tailed()
    plain, spread = (
        start(vectors, torch.ones(len(vectors)), 64, ALONE, generator(CPU, 1))
        for start in (lambda *given: kmeans(*given)[0], subspace_centres)
    )
    single = [
        int((torch.cdist(vectors, each).argmin(dim=1).bincount(minlength=64) == 1).sum()) for each in (plain, spread)
    ]
    assert single[1] < single[0] / 3


def test_replicas_have_the_same_best_centres_to_the_bit() -> None:
    vectors = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    parts = vectors.split([130, 0, 200, 70])
    found = on_replicas(
        4, lambda r: best_kmeans(parts[r.rank], torch.ones(len(parts[r.rank])), 20, r, generator(CPU, 0, r.rank))
    )
    for centres, mass in found:
        assert torch.equal(centres, found[0][0]) and torch.equal(mass, found[0][1])
    ones = torch.ones(len(vectors))
    single = best_kmeans(vectors, ones, 20, ALONE, generator(CPU, 0))[0]
    assert inertia(vectors, ones, found[0][0]) < 1.05 * inertia(vectors, ones, single)


def test_equal_vectors_have_one_centre() -> None:
    found, mass = best_kmeans(torch.ones(9, 4), torch.ones(9), 3, ALONE, generator(CPU, 0))
    assert torch.equal(found[mass > 0], torch.ones(1, 4)) and mass.sum() == 9


@pytest.mark.parametrize("value", [1e30, float("inf"), float("nan")])
def test_vectors_that_diverged_do_not_end_the_start(value: float) -> None:
    """The loss says so afterwards."""
    vectors = torch.randn(20, 4, generator=torch.Generator().manual_seed(0)) * value
    for centres, mass in on_replicas(
        2, lambda r: best_kmeans(vectors, torch.ones(20), 3, r, generator(CPU, 0, r.rank))
    ):
        assert len(centres) == len(mass) <= 3
