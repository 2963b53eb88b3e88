"""Drawing vectors from those that replicas hold together."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare

from cove_dist.quantization import Replicas
from cove_dist.quantization.replicas import ALONE, generator
from cove_dist.quantization.sampling import draw_vectors
from tests.unit.quantization.simulated import on_replicas

CPU = torch.device("cpu")


def numbered(size: int) -> torch.Tensor:
    return torch.arange(1.0, size + 1).unsqueeze(1).repeat(1, 3)


def draw(weights: list[float], size: int, seed: int = 0) -> list[int]:
    """The places that are drawn."""
    drawn = draw_vectors(numbered(len(weights)), torch.tensor(weights), size, ALONE, generator(CPU, seed))
    assert torch.equal(drawn, drawn[:, :1].expand_as(drawn))
    return (drawn[:, 0].int() - 1).tolist()


def test_each_vector_is_drawn_once_at_most() -> None:
    drawn = draw([1.0] * 30, 20)
    assert len(drawn) == len(set(drawn)) == 20
    assert sorted(draw([1.0] * 30, 30)) == list(range(30))


def test_a_vector_without_weight_is_never_drawn() -> None:
    weights = [0.0, 1e-20, 0.0, 1e20, 3.0]
    for seed in range(50):
        assert sorted(draw(weights, 4, seed)) == [1, 3, 4]


@pytest.mark.parametrize("weights", [[0.0, 0.0], []])
def test_nothing_to_draw_from(weights: list[float]) -> None:
    assert draw(weights, 3) == []


def test_odds_follow_the_weights() -> None:
    weights, random = torch.tensor([1, 2, 3, 4]), generator(CPU, 1)
    first = [int(draw_vectors(numbered(4), weights, 2, ALONE, random)[0, 0]) - 1 for _ in range(2000)]
    assert chisquare(torch.bincount(torch.tensor(first)), 200 * weights).pvalue > 0.01


def test_the_second_draw_has_the_odds_of_what_is_left() -> None:
    """Of weights 1, 2, 3 the first place comes second with odds 2/6 * 1/4 + 3/6 * 1/3."""
    random, weights = generator(CPU, 2), torch.tensor([1.0, 2.0, 3.0])
    second = [int(draw_vectors(numbered(3), weights, 2, ALONE, random)[1, 0]) for _ in range(2000)]
    assert second.count(1) / 2000 == pytest.approx(2 / 6 / 4 + 3 / 6 / 3, abs=0.03)


def test_replicas_draw_the_same_from_all_their_vectors() -> None:
    """Of 17, 2 and 0 vectors on three replicas, with odds over all of them."""
    parts = numbered(19).split([17, 2, 0])
    odds = torch.cat([torch.ones(17), torch.tensor([0.0, 30.0])]).split([17, 2, 0])
    last = 0
    for seed in range(200):

        def draw_here(replicas: Replicas, seed: int = seed) -> torch.Tensor:
            random = generator(CPU, seed, replicas.rank)
            return draw_vectors(parts[replicas.rank], odds[replicas.rank], 8, replicas, random)

        drawn = on_replicas(3, draw_here)
        assert torch.equal(drawn[0], drawn[1])
        assert torch.equal(drawn[0], drawn[2])
        places = drawn[0][:, 0].tolist()
        assert len(set(places)) == 8
        assert 18 not in places
        last += places[0] == 19
    assert last / 200 == pytest.approx(30 / 47, abs=0.1)


def test_replicas_that_hold_fewer_than_are_wanted_give_all() -> None:
    parts = numbered(10).split([3, 4, 2, 1])
    drawn = on_replicas(
        4, lambda r: draw_vectors(parts[r.rank], torch.ones(len(parts[r.rank])), 50, r, generator(CPU, 0, r.rank))
    )
    assert sorted(drawn[0][:, 0].tolist()) == list(range(1, 11))
    assert all(torch.equal(drawn[0], other) for other in drawn)


def test_a_generator_depends_on_every_number_of_its_key_and_leaves_torchs_unchanged() -> None:
    before = torch.get_rng_state()
    keys = [(0, 1, 2), (0, 2, 1), (1, 1, 2), (0, 1, 3), (0, 1)]
    draws = {torch.rand(1, generator=generator(CPU, *key)).item() for key in keys}
    assert len(draws) == len(keys)
    assert torch.equal(torch.get_rng_state(), before)
    assert generator(CPU, 3, 1).initial_seed() == generator(CPU, 3, 1).initial_seed()
