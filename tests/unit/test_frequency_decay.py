"""Weight decay in proportion to a power of the counts, against a float64 loop, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.config import TableOptimizerConfig
from cove_dist.embeddings.frequency_decay import decay_factors
from cove_dist.embeddings.optimizers import optimizer_factory
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import task_of
from data_pipeline.schema import Schema
from tests.interactions import SMALL_RUN
from tests.unit.test_row_decay import PLAIN, ROWS, LookUps, gradient, look_ups, tables, train

COUNTS = torch.tensor([1, 8, 3, 0, 40, 2])


def factor(row: int, power: float) -> float:
    """By the formula; the mean is over the ids that occur."""
    seen = [float(count) ** power for count in COUNTS.tolist() if count]
    return float(COUNTS[row]) ** power / (sum(seen) / len(seen)) if COUNTS[row] else 0.0


@given(st.sampled_from(sorted(PLAIN)), look_ups, st.sampled_from(["all", "looked_up"]), st.sampled_from([0.6, 1.0]))
def test_rows_decay_in_proportion_to_the_power_of_their_counts(
    name: str, steps: LookUps, rows_that_decay: str, power: float
) -> None:
    if (name, rows_that_decay) == ("sgd", "looked_up"):
        return  # refused
    found, expected = tables(), tables()
    config = TableOptimizerConfig(name, 0.1, 0.2, rows_that_decay, power)
    optimizer = optimizer_factory(config, {found: decay_factors(COUNTS, power).double()})([found])
    plain, last = PLAIN[name]([expected], 0.1), dict.fromkeys(range(ROWS), -1)
    for step, (looked_up, lr) in enumerate(steps):
        expected.grad = gradient(step, looked_up)
        for row in range(ROWS) if rows_that_decay == "all" else looked_up:
            missed = 1 if rows_that_decay == "all" else step - last[row]
            expected.grad[row] += 0.2 * factor(row, power) * missed * expected.data[row]
            last[row] = step
        plain.param_groups[0]["lr"] = lr
        plain.step()
    train(optimizer, found, steps)
    torch.testing.assert_close(found.data, expected.data, rtol=1e-5, atol=1e-6)


def test_the_mean_decay_is_the_given_one_and_power_0_is_equal_decay() -> None:
    seen = COUNTS > 0
    assert decay_factors(COUNTS, 0.6)[seen].mean().item() == pytest.approx(1)
    assert decay_factors(COUNTS, 1e-12)[seen].tolist() == pytest.approx([1] * 5)


def test_counts_are_those_of_the_training_split(interactions: Path) -> None:
    schema = Schema.load(interactions)
    config, _ = load_run_config([*SMALL_RUN, "model=cfkg", f"data.path={interactions}"])
    counts = task_of(config).row_counts(config, schema)
    rows = pq.read_table([interactions / file for file in schema.splits["train"].files])
    for name in ("user_id", "item_id"):
        expected = np.bincount(rows[name].to_numpy(), minlength=schema.entity(name[:4]).num_rows)
        assert counts[name].tolist() == expected.tolist()
    edges = np.load(interactions / "history" / "attributes" / "items.npy")
    total = sum(schema.attributes.values())
    assert counts["attributes"].tolist() == np.bincount(edges, minlength=total + 1).tolist()


def test_decay_that_compounds_is_refused() -> None:
    given = ("name=sgd", "weight_decay=0.1", "weight_decay_rows=looked_up", "weight_decay_frequency_power=0.5")
    with pytest.raises(ConfigError, match=r"frequency_power = 0\.5: not with sgd .*allowed: 0, or weight_decay_rows"):
        load_run_config([f"embeddings.optimizer.{each}" for each in given])


def test_a_power_that_overflows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"weight_decay_frequency_power = 400: 40 occurrences to this power"):
        decay_factors(COUNTS, 400)
