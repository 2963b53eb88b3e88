"""Maintenance after steps of several training passes, as gradient accumulation has them, on one and two replicas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from cove_dist.quantization import MaintenanceSettings, Replicas
from tests.unit.quantization.loops import Loop
from tests.unit.quantization.simulated import on_replicas

LEARNING = ("gradient", "ema")
PASSES = torch.arange(18).view(3, 6)  # the ids of every pass


def maintained(settings: MaintenanceSettings, learning: str) -> Callable[[Replicas], tuple[torch.Tensor, int]]:
    """Return a function of replicas: level 1 after a step of several passes, and the number of revived codes.

    Before it, all vectors choose the first of its 20 codes.
    """

    def run(replicas: Replicas) -> tuple[torch.Tensor, int]:
        loop = Loop(settings, learning, replicas)
        with torch.no_grad():
            loop.quantizer.codebooks[0].copy_(100.0 + torch.arange(20.0).unsqueeze(1))
            for ids in PASSES:
                own = ids.tensor_split(replicas.world_size)[replicas.rank]
                loop.quantizer(loop.table(own), ids=own)
        revived = loop.maintenance.after_step(1)
        return loop.codebooks()[0], revived.get("item_1", 0)

    return run


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("learning", LEARNING)
def test_a_start_by_kmeans_clusters_the_vectors_of_all_passes(learning: str, world_size: int) -> None:
    """There are more codes than vectors, so that each vector is a centre."""
    vectors = Loop(MaintenanceSettings()).table.weight.detach()[PASSES.flatten()]
    settings = MaintenanceSettings("kmeans", kmeans_step=1, kmeans_batches=1)
    for codebook, _ in on_replicas(world_size, maintained(settings, learning)):
        assert (vectors.unsqueeze(1) - codebook).abs().amax(dim=2).amin(dim=1).max() < 1e-5


@pytest.mark.parametrize("with_ids", [False, True])
def test_a_whole_table_is_kept_once_a_step(with_ids: bool) -> None:
    """As the embeddings of a graph model, which are the same in all passes of a step; but rows that are only fused."""
    loop, ids = Loop(MaintenanceSettings(revive_every=1)), torch.arange(60)
    for _ in PASSES:
        loop.quantizer(loop.table.weight, ids=ids if with_ids else None, fuse_only=ids >= 50)
    [kept] = loop.quantizer.observations
    assert torch.equal(kept.vectors, loop.table.weight[:50])
    assert kept.counts is not None and kept.counts.tolist() == 50 * [len(PASSES)]


def test_of_a_table_that_moves_kmeans_clusters_and_checkpoints_the_newest_rows() -> None:
    loop = Loop(MaintenanceSettings("kmeans", kmeans_step=5, kmeans_batches=4))
    for step in range(1, 5):
        with torch.no_grad():
            loop.table.weight.add_(1)
        loop.quantizer(loop.table.weight, ids=torch.arange(60))
        loop.maintenance.after_step(step)
    [(vectors, counts, ids)] = loop.maintenance.state_dict()["collected"]["item"]
    assert torch.equal(vectors, loop.table.weight) and ids.tolist() == list(range(60))
    assert counts.tolist() == 60 * [3]


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("learning", LEARNING)
def test_dead_codes_move_to_vectors_of_all_passes(learning: str, world_size: int) -> None:
    """There are 19 dead codes for 18 vectors, so that each vector gets one."""
    vectors = Loop(MaintenanceSettings()).table.weight.detach()[PASSES.flatten()]
    for codebook, revived in on_replicas(world_size, maintained(MaintenanceSettings(revive_every=1), learning)):
        assert revived == 18
        assert (vectors.unsqueeze(1) == codebook).all(dim=2).any(dim=1).all()
