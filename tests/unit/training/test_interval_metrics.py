"""Losses of an interval of steps, summed for many steps at once."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.errors import DivergedError
from cove_dist.faults.finite import LossCheck
from cove_dist.training.metrics import IntervalMetrics


class Step(NamedTuple):
    rows: int
    losses: dict[str, torch.Tensor]


def steps_of(count: int) -> list[Step]:
    generator = torch.Generator().manual_seed(count)
    values = torch.rand(count, 2, generator=generator)
    return [Step(7 + index % 5, {"loss": a, "rank": b}) for index, (a, b) in enumerate(values)]


def means(steps: list[Step]) -> dict[str, float]:
    """Return the means over rows by sums in float64, one step after the other."""
    rows = sum(step.rows for step in steps)
    found = {}
    for name in ("loss", "rank"):
        total = 0.0
        for step in steps:
            total += float(step.losses[name]) * step.rows
        found[name] = total / rows
    return found


@pytest.mark.parametrize("count", [1, 255, 256, 257, 600])
def test_losses_are_means_over_rows_also_after_a_state_was_loaded(context: DistributedContext, count: int) -> None:
    steps, cut = steps_of(count), count // 2
    whole, first, second = (IntervalMetrics({}, context) for _ in range(3))
    for step in steps:
        whole.add(step, {})
    for step in steps[:cut]:
        first.add(step, {})
    second.load_state_dict(first.state_dict())
    for step in steps[cut:]:
        second.add(step, {})
    expected = means(steps)
    for metrics in (whole.close(whole=False), second.close()):
        assert {name: metrics[name] for name in expected} == expected
    second.add(steps[0], {})
    assert second.close()["loss"] == float(steps[0].losses["loss"])  # a new interval


@pytest.mark.parametrize("step", [1, 256, 257, 600])
def test_the_first_step_of_many_that_was_not_finite_is_named(context: DistributedContext, step: int) -> None:
    check = LossCheck(context)
    for number in range(1, 601):
        value = torch.tensor(float("nan") if number >= step else 1.0)
        check.note(number, {"loss": value, "rank": torch.tensor(1.0)})
    with pytest.raises(DivergedError, match=rf"loss not finite at step {step} \(loss\)") as error:
        check.check()
    assert error.value.step == step
