"""The benchmark of start-up: what its stages and medians are."""

from __future__ import annotations

import importlib
import sys
import time
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("startup")
sys.path.remove(BENCHMARKS)


def test_stages_add_up_to_the_time_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([2.0, 3.0, 7.0, 7.5])
    monkeypatch.setattr(time, "process_time", lambda: next(now))
    stages = benchmark.Stages()
    assert stages.then("build", lambda value: value + 1)(1) == 2
    assert stages.within("validation", lambda: "metrics")() == "metrics"
    stages.end("rest")
    assert stages.seconds == {"build": 2, "steps": 1, "validation": 4, "rest": 0.5}


def test_medians_of_nested_numbers() -> None:
    rounds = [{"s": s, "stages": {"steps": 10 * s}} for s in (3.0, 1.0, 2.0)]
    assert benchmark.medians(rounds) == {"s": 2.0, "stages": {"steps": 20.0}}
