"""The benchmark of two ranks: how its ratios are made, and that its configurations exist."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from cove_dist.tasks.configuration import load_run_config

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("ranks")
sys.path.remove(BENCHMARKS)


def test_ratios_are_of_the_same_round() -> None:
    rounds = [
        {"one": 10.0, "two": 19.0, "apart": 20.0},
        {"one": 20.0, "two": 30.0, "apart": 40.0},
        {"one": 5.0, "two": 8.0, "apart": 9.0},
    ]
    summary = benchmark.summarize(rounds)
    assert summary == pytest.approx(
        {
            "one": 10.0,
            "two": 19.0,
            "apart": 20.0,
            "speed_up": 1.6,
            "lowest": 1.5,
            "highest": 1.9,
            "apart_ratio": 2.0,
            "communication": 1 / 9,
        }
    )


@pytest.mark.parametrize("name", benchmark.CONTESTS)
def test_every_configuration_exists_and_is_divided_among_the_ranks(name: str) -> None:
    contest = benchmark.CONTESTS[name]
    config, _ = load_run_config([*contest.overrides, f"trainer.batch_size={contest.batch_size}"])
    assert config.trainer.rank_batch_size(benchmark.RANKS) == contest.batch_size // benchmark.RANKS


def test_programs_that_run_at_once_share_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def run_ours(data: Path, epochs: int, ranks: int, *overrides: str, threads: int) -> dict[str, float]:
        started.append((ranks, overrides[-1], threads))
        return {"samples_per_s": 100.0 * ranks}

    monkeypatch.setattr(benchmark, "run_ours", run_ours)
    speeds = benchmark.measure_round(benchmark.CONTESTS["deepfm"], Path("data"), epochs=1)
    assert speeds == {"one": 100.0, "two": 200.0, "apart": 200.0}
    half, whole = "trainer.batch_size=2500", "trainer.batch_size=5000"
    assert sorted(started) == sorted([(1, half, 1), (1, half, 1), (1, whole, 1), (2, whole, 1)])
