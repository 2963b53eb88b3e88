"""The benchmark of the data stream, on small data."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("stream")
sys.path.remove(BENCHMARKS)


def test_every_loader_reads_every_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "stream.json"
    small = ["--rows", "5003", "--batch-sizes", "500", "2000", "--map-rows", "1200", "--rounds", "2"]
    benchmark.main([*small, "--json", str(file)])
    found = json.loads(file.read_text())
    rows = {"scan": 5003, "stream": 5003, "Dataset": 1200}
    assert all(epoch["rows"] == rows[epoch["loader"]] and epoch["resident_mb"] for epoch in found["epochs"])
    assert len(found["epochs"]) == 2 * (1 + 4 * 2)
    cases = {(case["loader"], case["shuffle"], case["batch_size"]) for case in found["cases"]}
    orders = {(shuffle, size) for shuffle in (False, True) for size in (500, 2000)}
    assert cases == {("scan", False, 0), *((name, *order) for name in ("stream", "Dataset") for order in orders)}
    assert "Reading an epoch" in capsys.readouterr().out


def epoch(loader: str, number: int, cpu_seconds: float, rows: int = 100) -> object:
    return benchmark.Epoch(loader, number, True, 10, rows, 2 * cpu_seconds, cpu_seconds, [5.0, 7.0, 6.0])


def test_ratios_are_taken_round_by_round_and_by_row() -> None:
    epochs = [epoch("scan", 0, 1), epoch("stream", 0, 4, rows=200), epoch("scan", 1, 3), epoch("stream", 1, 4)]
    bare, ours = benchmark.summarize(epochs)
    assert bare["ratio_to_scan"] == 1
    assert ours["ratio_to_scan"] == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert (ours["rows_per_second"], ours["rows_per_cpu_second"]) == pytest.approx(((25 + 12.5) / 2, (50 + 25) / 2))
    assert (ours["resident_mb"], ours["growth_mb"]) == (5, 2)
