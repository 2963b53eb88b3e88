"""A frozen codebook stays as it is, to the bit, and stops no other. Gradients: `test_against_reference`."""

from __future__ import annotations

import itertools

import pytest
import torch

from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance, MaintenanceSettings
from tests.unit.quantization.loops import DIM, Loop, same

LEARNING = ("gradient", "ema")
EVERYTHING = MaintenanceSettings("kmeans", kmeans_step=3, kmeans_batches=2, revive_every=2)


@pytest.mark.parametrize("learning", LEARNING)
@pytest.mark.parametrize("frozen", [(0,), (1,), (0, 1)])
def test_a_frozen_codebook_stays_as_it_is_and_the_others_learn(learning: str, frozen: tuple[int, ...]) -> None:
    """Through gradients or averages, the k-means start of step 3 and revivals."""
    loop = Loop(EVERYTHING, learning, scale=3.0)
    for level in frozen:
        loop.quantizer.freeze(level)
    assert loop.quantizer.frozen == tuple(level in frozen for level in range(2))
    before, revived = loop.codebooks(), 0
    for step in range(1, 9):
        placed = loop.step(step)
        assert all(placed.get(f"item_{level + 1}", 0) == 0 for level in frozen)
        revived += sum(placed.values())
    for level, codebook in enumerate(loop.codebooks()):
        assert torch.equal(codebook, before[level]) == (level in frozen)
    assert (revived > 0) == (len(frozen) < 2)
    if learning == "ema":
        counts = loop.quantizer.moving_averages.counts.split((20, 4))  # 1 at the start
        assert [bool((part == 1).all()) for part in counts] == [level in frozen for level in range(2)]


@pytest.mark.parametrize("learning", LEARNING)
def test_kmeans_above_a_frozen_level_starts_from_what_chose_its_codes(learning: str) -> None:
    """Every coarse code is the mean of the frozen codes nearest to it, by how many vectors chose each."""
    loop = Loop(MaintenanceSettings("kmeans", kmeans_step=1, kmeans_batches=1), learning)
    loop.quantizer.freeze(0)
    loop.quantizer.keep_observations = True
    weight = loop.table.weight.detach().clone()[loop.batches[1]]
    loop.step(1)
    fine, coarse = loop.codebooks()
    mass = torch.bincount(torch.cdist(weight, fine).argmin(dim=1), minlength=20).float().unsqueeze(1)
    parents = torch.cdist(fine, coarse).argmin(dim=1)
    sums = torch.zeros(4, DIM).index_add_(0, parents, fine * mass)
    torch.testing.assert_close(coarse, sums / torch.zeros(4, 1).index_add_(0, parents, mass))


def test_freezing_by_requires_grad_is_the_same() -> None:
    loops = [Loop(EVERYTHING, scale=3.0) for _ in range(2)]
    loops[0].quantizer.freeze(1)
    loops[1].quantizer.codebooks[1].requires_grad_(False)
    for step, loop in itertools.product(range(1, 6), loops):
        loop.step(step)
    assert loops[1].quantizer.frozen == (False, True)
    assert same(loops[0].codebooks(), loops[1].codebooks())


@pytest.mark.parametrize("learning", LEARNING)
def test_what_is_no_longer_frozen_learns_again(learning: str) -> None:
    loop = Loop(MaintenanceSettings(), learning)
    loop.quantizer.freeze(0)
    loop.step(1)
    before = loop.codebooks()
    loop.quantizer.freeze(0, frozen=False)
    assert loop.quantizer.frozen == (False, False)
    loop.step(2)
    assert not torch.equal(loop.codebooks()[0], before[0])


def test_averaged_codebooks_get_no_gradient_whoever_asks_for_one() -> None:
    quantizer = CascadedQuantizer(4, (6, 2), learning="ema").requires_grad_(True)
    out = quantizer(torch.randn(9, 4, requires_grad=True))
    (out.loss + out.fused.sum()).backward()
    assert all(codebook.grad is None for codebook in quantizer.codebooks)


@pytest.mark.parametrize("learning", LEARNING)
def test_all_frozen_still_gives_the_input_its_gradient(learning: str) -> None:
    torch.manual_seed(0)
    quantizer, z = CascadedQuantizer(4, (6, 2), learning=learning, init_std=0.5), torch.randn(9, 4, requires_grad=True)
    gradients = []
    for _ in range(2):
        out = quantizer(z)
        (out.loss + out.fused.sum()).backward()
        gradients.append(z.grad)
        z.grad = None
        for level in range(2):
            quantizer.freeze(level)
    assert torch.equal(gradients[0], gradients[1])
    CodebookMaintenance({"item": quantizer}).after_step(1)
