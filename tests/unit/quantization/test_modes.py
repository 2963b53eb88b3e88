"""Evaluation mode, passes without gradients, and passes that activation checkpointing repeats."""

from __future__ import annotations

import copy
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from cove_dist.quantization import CascadedQuantizer, CodebookMaintenance, MaintenanceSettings
from tests.properties import few
from tests.unit.quantization.loops import Loop

LEARNING = ("gradient", "ema")
EVERYTHING = MaintenanceSettings("kmeans", kmeans_step=3, kmeans_batches=3, revive_every=2)


def everything(quantizer: CascadedQuantizer, maintenance: CodebookMaintenance) -> list:
    tensors = [*quantizer.state_dict().values(), *quantizer.buffers(), *quantizer.usage(), maintenance.state_dict()]
    return copy.deepcopy([*tensors, *quantizer.observations])


@pytest.mark.parametrize("learning", LEARNING)
def test_evaluation_mode_changes_nothing_for_training(learning: str) -> None:
    """At a step of the gathering, of the start, of a revival and of averages alone."""
    plain, interrupted = (Loop(EVERYTHING, learning, scale=3.0) for _ in range(2))
    for step in range(1, 7):
        before = everything(interrupted.quantizer, interrupted.maintenance)
        interrupted.quantizer.eval()
        interrupted.quantizer(torch.full((5, 6), float(step)))
        assert interrupted.maintenance.after_step(step - 1) == {}
        torch.testing.assert_close(everything(interrupted.quantizer, interrupted.maintenance), before, rtol=0, atol=0)
        interrupted.quantizer.train()
        assert interrupted.step(step) == plain.step(step)
        torch.testing.assert_close(interrupted.codebooks(), plain.codebooks(), rtol=0, atol=0)


@pytest.mark.parametrize("learning", LEARNING)
def test_a_training_pass_before_evaluation_mode_waits_for_training_mode(learning: str) -> None:
    quantizer, z = CascadedQuantizer(6, (20, 4), learning=learning), torch.randn(30, 6)
    maintenance = CodebookMaintenance({"item": quantizer}, MaintenanceSettings(revive_every=1))
    quantizer(z)
    before = everything(quantizer, maintenance)
    quantizer.eval()
    for step in (1, 2):
        assert maintenance.after_step(step) == {}
    torch.testing.assert_close(everything(quantizer, maintenance), before, rtol=0, atol=0)
    quantizer.train()
    assert maintenance.after_step(3)["item_1"] > 0


@pytest.mark.parametrize("learning", LEARNING)
def test_of_two_quantizers_the_one_in_evaluation_mode_is_unchanged(learning: str) -> None:
    def train(both: bool) -> tuple[dict[str, CascadedQuantizer], int]:
        torch.manual_seed(0)
        quantizers = {name: CascadedQuantizer(6, (20, 4), learning=learning) for name in ("user", "item")}
        maintenance = CodebookMaintenance(quantizers, EVERYTHING)
        quantizers["user"].train(both)
        placed = 0
        for step in range(1, 6):
            z = torch.randn(30, 6)
            for quantizer in quantizers.values():
                quantizer(z)
            revived = maintenance.after_step(step)
            assert both or not any(name.startswith("user") for name in revived)
            placed += revived.get("item_1", 0)
        return quantizers, placed

    (both, in_both), (one, in_one) = train(True), train(False)
    assert in_both == in_one > 0
    torch.testing.assert_close(one["item"].state_dict(), both["item"].state_dict(), rtol=0, atol=0)
    torch.manual_seed(0)
    fresh = CascadedQuantizer(6, (20, 4), learning=learning)
    torch.testing.assert_close(one["user"].state_dict(), fresh.state_dict(), rtol=0, atol=0)
    assert not torch.cat(one["user"].usage()).any()


@pytest.mark.parametrize("learning", LEARNING)
def test_training_mode_counts_passes_without_gradients_too(learning: str) -> None:
    with_gradients, without = (CascadedQuantizer(6, (20, 4), learning=learning) for _ in range(2))
    without.load_state_dict(with_gradients.state_dict())
    z = torch.randn(30, 6)
    with_gradients(z)
    with torch.no_grad():
        without(z)
    torch.testing.assert_close(list(without.buffers()), list(with_gradients.buffers()), rtol=0, atol=0)
    assert torch.cat(without.usage()).any()


@given(st.sampled_from(LEARNING), st.booleans(), st.booleans(), st.integers(1, 3))
@few
def test_activation_checkpointing_changes_nothing(learning: str, reentrant: bool, padded: bool, passes: int) -> None:
    def train(checkpointed: bool) -> list:
        torch.manual_seed(1)
        quantizer = CascadedQuantizer(6, (20, 4), learning=learning, init_std=0.5)
        maintenance = CodebookMaintenance({"item": quantizer}, MaintenanceSettings(revive_every=2))
        left = []
        for step in range(1, 4):
            quantizer.zero_grad()
            z = torch.randn(passes, 30, 6, requires_grad=True)
            counts = torch.arange(30) % 4 if padded else None
            total = 0.0
            for part in z:
                repeat = partial(checkpoint, quantizer, use_reentrant=reentrant) if checkpointed else quantizer
                fused, _, loss = repeat(part, counts)
                total = total + loss + fused.square().sum()
            total.backward()
            left.append([z.grad, [codebook.grad for codebook in quantizer.codebooks]])
            left.append([everything(quantizer, maintenance), maintenance.after_step(step)])
        return left

    torch.testing.assert_close(train(True), train(False), rtol=0, atol=0)
