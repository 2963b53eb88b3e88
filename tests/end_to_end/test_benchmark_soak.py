"""The soak in short: faults of two kinds, and every loss is that of a run without them."""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("soak")
sys.path.remove(BENCHMARKS)


def test_a_run_survives_faults_and_loses_nothing(tmp_path: Path) -> None:
    benchmark.main(["--faults", "power_cut", "flip_byte", "--every", "0", "--json", str(tmp_path / "found.json")])
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["measured"]["program"].startswith("benchmarks/")
    assert found["measured"]["machine"]["cores"] >= 1
    assert found["measured"]["versions"]["torch"] == version("torch")
    cut, flip = found["survived"]
    assert (cut["fault"], flip["fault"]) == ("power_cut", "flip_byte")
    assert cut["resumed"] == cut["step"]
    assert flip["resumed"] < flip["step"]
    assert found["differences"] == []
    assert found["compared"] > found["steps"] // benchmark.LOG_EVERY


def test_a_run_that_differs_is_found(tmp_path: Path) -> None:
    def write(name: str, records: list[dict]) -> Path:
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
        return tmp_path / name

    losses = [{"kind": "train", "step": step, "loss": 1 / step} for step in (1, 5, 10, 12)]
    whole = write("whole", [*losses, {"kind": "validation", "step": 7, "auc": 0.5}])
    same = write("same", [*losses[1:3], {"kind": "validation", "step": 7, "auc": 0.5}])
    assert benchmark.compare(same, whole, 12) == []
    other = write("other", [losses[1], {"kind": "validation", "step": 7, "auc": 0.25}])
    assert benchmark.compare(other, whole, 12) == [
        "('train', 10): None with faults, 0.1 without",
        "('validation', 7): 0.25 with faults, 0.5 without",
    ]


def test_random_faults_are_those_of_the_seed_and_all_kinds_occur(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = [list(zip(range(30), benchmark.random_faults(1, seed), strict=False)) for seed in (3, 3, 4)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert {fault for _, fault in drawn[0]} == set(benchmark.FAULTS)
