"""Learning rates that rise and fall, against torch's schedules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.optimization import build_schedule

STEPS = 12
FALLING = {
    "constant": lambda optimizer, steps: ConstantLR(optimizer, 1.0),
    "linear": lambda optimizer, steps: LinearLR(optimizer, 1.0, 0.0, total_iters=steps),
    "cosine": lambda optimizer, steps: CosineAnnealingLR(optimizer, steps),
}


def rates(schedule: LRScheduler, steps: int = STEPS) -> list[float]:
    found = []
    for _ in range(steps + 1):
        found.append(schedule.get_last_lr()[0])
        schedule.optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("warmup", [0, 1, 5])
@pytest.mark.parametrize("name", FALLING)
def test_rates_are_those_of_torch_and_0_after_the_last_step(name: str, warmup: int) -> None:
    """After the warm-up, which torch's linear schedule ends one step later."""
    overrides = [f"trainer.schedule.name={name}", "trainer.epochs=3", f"trainer.warmup_steps={warmup}"]
    config, _ = load_run_config(overrides)
    optimizer, reference = (torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1) for _ in range(2))
    found = rates(build_schedule(optimizer, config.trainer, STEPS // 3))
    parts: list[LRScheduler] = [FALLING[name](reference, STEPS - warmup)]
    if warmup:
        parts.insert(0, LinearLR(reference, 1 / warmup, 1.0, total_iters=max(1, warmup - 1)))
    expected = rates(SequentialLR(reference, parts, [warmup] if warmup else []))
    assert found == pytest.approx(expected, abs=1e-9)
    assert (found[-1] == 0) == (name != "constant")


@pytest.mark.parametrize(
    ("overrides", "end"),
    [([], STEPS), (["max_steps=7"], 7), (["schedule.epochs=5"], 20), (["schedule.steps=15"], 15)],
)
def test_the_end_is_that_of_training_or_the_given_one(overrides: list[str], end: int) -> None:
    given = ["schedule.name=linear", "epochs=3", *overrides]
    config, _ = load_run_config([f"trainer.{each}" for each in given])
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 1.0)
    assert rates(build_schedule(optimizer, config.trainer, 4), end - 1)[-1] == pytest.approx(1 / end)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["schedule.epochs=2"], r"0 from step 8 on, of 12; .*cover 12 steps, or null"),
        (["schedule.steps=11"], r"0 from step 11 on, of 12"),
        (["warmup_steps=12"], r"warmup_steps = 12: allowed: below the 12 steps"),
    ],
)
def test_steps_at_a_rate_of_0_are_refused(overrides: list[str], message: str) -> None:
    given = ["schedule.name=cosine", "epochs=3", *overrides]
    config, _ = load_run_config([f"trainer.{each}" for each in given])
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 1.0)
    with pytest.raises(ConfigError, match=message):
        build_schedule(optimizer, config.trainer, 4)
    build_schedule(optimizer, config.trainer, None)


def test_two_ends_are_refused() -> None:
    ends = ["trainer.schedule.epochs=9", "trainer.schedule.steps=9"]
    with pytest.raises(ConfigError, match=r"epochs = 9: not together with steps = 9"):
        load_run_config(["trainer.schedule.name=linear", *ends])
