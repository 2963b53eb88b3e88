"""The benchmark of rankings: both of a data set are measured next to their bare operations."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from cove_dist.distributed import process_group

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("evaluation")
sys.path.remove(BENCHMARKS)


@pytest.mark.parametrize("ranking", benchmark.RANKINGS)
def test_a_ranking_is_measured_next_to_its_operations(ranking: str, interactions: Path) -> None:
    with process_group("cpu") as context:
        found = benchmark.measure(interactions, ranking, 1, context)
    assert found["users"] > 0
    assert found["ratio"] == pytest.approx(found["seconds"] / found["bare_seconds"])
