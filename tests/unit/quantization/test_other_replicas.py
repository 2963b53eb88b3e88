"""Upkeep of codebooks that goes on with another number of replicas."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch

from cove_dist.quantization import MaintenanceSettings, Replicas
from cove_dist.quantization.observation import Observation, oldest_first
from tests.unit.quantization.loops import Loop, same
from tests.unit.quantization.simulated import on_replicas

SETTINGS = MaintenanceSettings("kmeans", kmeans_step=3, kmeans_batches=2, revive_every=6)
States = list[list[dict[str, Any]]]


def start(replicas: Replicas, states: States, settings: MaintenanceSettings = SETTINGS) -> Loop:
    """Restore a loop; the maintenance of former replica r goes to replica r modulo their number."""
    loop = Loop(settings, replicas=replicas, scale=3.0)
    if states:
        parts = loop.table, loop.quantizer, loop.optimizer
        for part, state in zip(parts, deepcopy(states[0][:3]), strict=True):
            part.load_state_dict(state)
        loop.maintenance.load_state_dict(*(state[3] for state in states[replicas.rank :: replicas.world_size]))
    return loop


def run(world_size: int, steps: range, states: States, settings: MaintenanceSettings = SETTINGS) -> States:
    def train(replicas: Replicas) -> list[dict[str, Any]]:
        loop = start(replicas, states, settings)
        for step in steps:
            loop.step(step)
        return [part.state_dict() for part in (loop.table, loop.quantizer, loop.optimizer, loop.maintenance)]

    return on_replicas(world_size, train)


def codebooks(states: States) -> list[torch.Tensor]:
    return [states[0][1][f"codebooks.{level}"] for level in range(2)]


def moved(world_size: int, states: States) -> list[torch.Tensor]:
    """Return which codes of each level the revival after step 12 moves."""
    revived = codebooks(run(world_size, range(12, 13), states))
    plain = codebooks(run(world_size, range(12, 13), states, MaintenanceSettings("kmeans", 3, 2)))
    return [(after - before).abs().amax(dim=1) > 1e-3 for after, before in zip(revived, plain, strict=True)]


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_a_code_that_any_former_replica_chose_is_not_revived(world_size: int) -> None:
    states = run(2, range(1, 12), [])
    whole, resumed = moved(2, states), moved(world_size, states)
    assert same(resumed, whole)
    forgotten = moved(2, [[*state[:3], {**state[3], "usage": state[3]["usage"] * 0}] for state in states])
    assert whole[0].sum() < forgotten[0].sum()


@pytest.mark.parametrize("world_size", [1, 3])
def test_what_former_replicas_collected_for_kmeans_is_kept_once(world_size: int) -> None:
    def collected(states: States) -> list[list[float]]:
        kept = [Observation(*seen) for state in states for seen in state[3]["collected"]["item"]]
        return sorted(torch.cat([seen.vectors for seen in kept]).tolist())

    states = run(2, range(1, 3), [])
    assert len(collected(states)) == 24
    assert collected(run(world_size, range(0), states)) == collected(states)


def test_observations_of_several_replicas_are_in_order_of_their_steps() -> None:
    a1, a2, b2 = (Observation(torch.full((1, 1), value), None, None) for value in (1.0, 2.0, 3.0))
    assert oldest_first([[a1, a2], [b2]]) == [a1, a2, b2]
    assert oldest_first([[b2], [a1, a2]]) == [a1, b2, a2]
    assert oldest_first([]) == []
