"""The benchmark of a training step runs, times the parts where they belong, and sums up rightly."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from tests.configurations import COVE

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("training_step")
sys.path.remove(BENCHMARKS)

TINY = ("model.hidden_units=[16,8]", "embeddings.dim=8", "trainer.batch_size=240")
LEVELS = COVE[1:]  # [8, 3] users, [12, 4] items


def test_measured(prepared: Path) -> None:
    settings = benchmark.Settings(str(prepared), (*TINY, *LEVELS), rounds=2, steps=2, warm_up=1)
    measured = benchmark.measure(settings)
    sizes = {name: figures["bytes"] for name, figures in measured.items()}
    averages = 4 * (8 + 3 + 12 + 4) * (8 + 1)
    assert sizes == dict(zip(benchmark.CONTESTANTS, (0, 4 * (8 + 3 + 12 + 4) * 8, averages, averages), strict=True))
    for name, figures in measured.items():
        assert len(figures["rounds"]) == 2
        for block in figures["rounds"]:
            parts = [block[part] for part in ("search", "other forward", "backward")]
            assert all(part > 0 for part in parts) == (name != benchmark.BASE)
            assert 0 <= sum(parts) < block["step"]
    summary = benchmark.summarize(measured)
    assert summary[benchmark.BASE]["ratio"] == 1
    assert benchmark.step_table(summary).row_count == benchmark.part_table(summary).row_count + 1


def blocks(*steps: float, **parts: float) -> list[dict[str, float]]:
    return [{"step": step, **dict.fromkeys(benchmark.PARTS, 0.0), **parts} for step in steps]


def test_summary() -> None:
    """Ratios are taken round by round; the all-reduce of moving averages is part of the upkeep, of gradients not."""
    parts = {"search": 3.0, "other forward": 1.0, "backward": 2.0}
    measured = {
        benchmark.BASE: {"rounds": blocks(100, 200, 100), "bytes": 0, "all_reduce": 0.0},
        "COVE, gradient": {"rounds": blocks(110, 210, 120, **parts), "bytes": 2000, "all_reduce": 0.5},
        "COVE, ema": {"rounds": blocks(110, 210, 120, **parts, upkeep=1.5), "bytes": 2000, "all_reduce": 0.5},
    }
    summary = benchmark.summarize(measured)
    gradient = summary["COVE, gradient"]
    assert gradient["ratio"] == pytest.approx(1.1)
    assert (gradient["lowest"], gradient["highest"]) == pytest.approx((1.05, 1.2))
    assert gradient["added"] == 10
    assert gradient["rest"] == pytest.approx(10 - 6 - 0.5)
    assert summary["COVE, ema"]["rest"] == pytest.approx(10 - 6 - 1.5)
    assert gradient["kilobytes"] == 2
