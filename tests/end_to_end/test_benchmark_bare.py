"""The benchmark of bare loops: a loop trains what the product trains."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cove_dist.distributed import process_group

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("bare")
sys.path.remove(BENCHMARKS)


@pytest.mark.parametrize("model", ["bprmf", "neumf", "lightgcn"])
def test_both_have_the_same_losses_and_all_parts_are_measured(model: str, interactions: Path) -> None:
    contest = replace(benchmark.CONTESTS[model], overrides=("trainer=cf", *benchmark.CONTESTS[model].overrides[2:]))
    with process_group("cpu") as context:
        found = benchmark.measure(contest, interactions, 16, 1, benchmark.CLOCKS["cpu"], context)
    assert found["steps"] > 0
    assert found["loss_difference"] < 1e-5
    assert set(found["parts"]) == {*benchmark.PARTS, "step", "rest"}
    assert found["ratio"] == pytest.approx(found["ms_a_step"] / found["bare_ms_a_step"])
