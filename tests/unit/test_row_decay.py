"""Decay of looked-up rows against a float64 loop, row by row."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from cove_dist.config import TableOptimizerConfig
from cove_dist.embeddings.optimizers import optimizer_factory
from tests.properties import few

ROWS, DIM = 6, 3
PLAIN = {
    "adam": lambda p, lr: torch.optim.Adam(p, lr),
    "adagrad": lambda p, lr: torch.optim.Adagrad(p, lr, eps=1e-8),
    "rowwise_adagrad": lambda p, lr: RowWiseAdagrad(p, lr, eps=1e-8),
    "sgd": lambda p, lr: torch.optim.SGD(p, lr),
}
LookUps = list[tuple[set[int], float]]  # of every step: the rows looked up, the learning rate

look_ups = st.lists(st.tuples(st.sets(st.integers(0, ROWS - 1)), st.sampled_from([0.1, 0.03])), min_size=1, max_size=12)


def tables() -> nn.Parameter:
    return nn.Parameter(torch.randn(ROWS, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def gradient(step: int, rows: Iterable[int]) -> torch.Tensor:
    random = torch.Generator().manual_seed(step)
    rows = sorted(rows)
    dense = torch.zeros(ROWS, DIM, dtype=torch.float64)
    dense[rows] = torch.randn(ROWS, DIM, dtype=torch.float64, generator=random)[rows]
    return dense


def train(optimizer: torch.optim.Optimizer, table: nn.Parameter, steps: LookUps) -> None:
    for step, (rows, lr) in enumerate(steps):
        table.grad = gradient(step, rows)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()


def decayed(name: str, table: nn.Parameter, decay: float = 0.2) -> torch.optim.Optimizer:
    return optimizer_factory(TableOptimizerConfig(name, 0.1, decay, "looked_up", 0.0))([table])


@given(st.sampled_from(["adam", "adagrad", "rowwise_adagrad"]), look_ups)
def test_a_row_is_given_the_decay_of_the_steps_that_it_missed(name: str, steps: LookUps) -> None:
    found, expected = tables(), tables()
    plain, last = PLAIN[name]([expected], 0.1), dict.fromkeys(range(ROWS), -1)
    for step, (rows, lr) in enumerate(steps):
        expected.grad = gradient(step, rows)
        for row in rows:
            for column in range(DIM):
                expected.grad[row, column] += 0.2 * (step - last[row]) * expected.data[row, column]
            last[row] = step
        plain.param_groups[0]["lr"] = lr
        plain.step()
    train(decayed(name, found), found, steps)
    torch.testing.assert_close(found.data, expected.data)


@given(look_ups)
def test_under_sgd_rows_looked_up_at_the_last_step_are_those_of_decay_of_all_rows(steps: LookUps) -> None:
    """Under a learning rate that changes too."""
    found, everywhere = tables(), tables()
    steps = [*steps, (set(range(ROWS)), 0.1)]
    train(decayed("sgd", found), found, steps)
    train(torch.optim.SGD([everywhere], 0.1, weight_decay=0.2), everywhere, steps)
    torch.testing.assert_close(found.data, everywhere.data)


@pytest.mark.parametrize("name", PLAIN)
def test_rows_that_are_never_looked_up_stay_as_they_are_to_the_bit(name: str) -> None:
    table, start = tables(), tables().detach()
    train(decayed(name, table), table, [({0, 2}, 0.1)] * 50)
    moved = (table != start).any(dim=1)
    assert moved.tolist() == [True, False, True, False, False, False]


def test_decay_of_all_rows_wipes_rows_that_adam_never_looks_up() -> None:
    """What the README warns of: a row of norm 0.02 under a decay of 1e-6."""
    table = nn.Parameter(torch.full((2, 4), 0.01))
    optimizer = optimizer_factory(TableOptimizerConfig("adam", 0.001, 1e-6, "all", 0.0))([table])
    for _ in range(1000):
        table.grad = torch.zeros(2, 4)
        optimizer.step()
    assert table.norm(dim=1).max() < 1e-4


@pytest.mark.parametrize("name", PLAIN)
def test_a_rare_row_gets_as_much_decay_in_all_as_a_frequent_one(name: str) -> None:
    """What is added to gradients, summed over all steps: ``weight_decay`` times the steps, times the row."""
    random, added = torch.Generator().manual_seed(0), torch.zeros(ROWS, dtype=torch.float64)
    table, steps = nn.Parameter(torch.ones(ROWS, DIM, dtype=torch.float64)), 400
    shares = torch.tensor([1.0, 0.5, 0.2, 0.1, 0.05, 0.02])
    optimizer = optimizer_factory(TableOptimizerConfig(name, 1e-9, 0.2, "looked_up", 0.0))([table])
    for step in range(steps):
        seen = torch.rand(ROWS, generator=random) < shares
        seen |= step == steps - 1
        table.grad = seen.double().unsqueeze(1).expand(ROWS, DIM).clone()
        optimizer.step()
        added += table.grad[:, 0] - seen.double()
    torch.testing.assert_close(added, torch.full_like(added, 0.2 * steps), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", PLAIN)
@given(look_ups, st.data())
@few
def test_a_state_goes_there_and_back(name: str, steps: LookUps, data: st.DataObject) -> None:
    stop = data.draw(st.integers(0, len(steps)))
    whole, resumed = tables(), tables()
    train(decayed(name, whole), whole, steps)
    first = decayed(name, resumed)
    train(first, resumed, steps[:stop])
    second = decayed(name, resumed)
    if stop:
        second.load_state_dict(first.state_dict())
    for step, (rows, lr) in list(enumerate(steps))[stop:]:
        resumed.grad = gradient(step, rows)
        second.param_groups[0]["lr"] = lr
        second.step()
    assert torch.equal(resumed, whole)


def test_a_gradient_of_nan_or_infinity_is_one() -> None:
    table = tables()
    optimizer = decayed("sgd", table)
    table.grad = torch.zeros(ROWS, DIM, dtype=torch.float64)
    table.grad[1, 0], table.grad[2, 0] = math.nan, math.inf
    optimizer.step()
    assert table.isfinite().all(dim=1).tolist() == [True, False, False, True, True, True]
