"""The benchmark of serving: its contestants agree, and it runs small."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("serving")
sys.path.remove(BENCHMARKS)


def test_fused_tables_score_as_codes_searched_at_every_request() -> None:
    clicks = benchmark.Clicks(users=5, items=9, hidden=[8])
    ids = torch.tensor([[0, 3], [4, 8], [2, 3]])
    scores = clicks.program("float32").module(ids, torch.zeros(3, 0))
    torch.testing.assert_close(scores, clicks.searching(ids))


def test_percentiles_are_of_all_requests_in_milliseconds() -> None:
    calls: list[str] = []
    seconds = benchmark.latencies({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, requests=4)
    assert calls == ["a", "b"] * 7  # three to warm up
    assert [len(each) for each in seconds.values()] == [4, 4]
    summary = benchmark.summarize({"a": [(0.001, 0.0005), (0.002, 0.001), (0.003, 0.005)]})["a"]
    assert summary["p50_ms"] == pytest.approx(2.0)
    assert summary["cpu_p50_ms"] == pytest.approx(1.0)
    assert summary["p99_ms"] == pytest.approx(2.98)


def test_it_runs_small_and_writes_what_it_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--users=5", "--items=20", "--candidates=7", "--hidden", "8", "--retrieved=400", "--requests=3"]
    benchmark.main([*small, f"--json={tmp_path / 'serving.json'}"])
    shown = capsys.readouterr().out
    written = json.loads((tmp_path / "serving.json").read_text())
    assert len(written["scoring"]) == 4
    assert all(name in shown for name in (*written["scoring"], *written["top_20"]))
    assert 0 < written["recall_of_inverted_file"] <= 1
