"""The benchmark of sources of negatives, on small data."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from tests.interactions import prepare_small

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("negatives")
sys.path.remove(BENCHMARKS)


def test_every_source_is_measured_against_the_first(tmp_path: Path) -> None:
    folder, file = prepare_small(tmp_path), tmp_path / "negatives.json"
    small = ("trainer.batch_size=200", "embeddings.dim=8", "negatives.category_count=3")
    sources = {name: source for name, source in benchmark.SOURCES["bprmf"].items() if "k-means" in name}
    sources = {"few": benchmark.CATEGORIES} | sources
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(benchmark.SOURCES, "bprmf", sources)
        given = ["--interactions", str(folder), "--rounds", "2", "--steps", "3", "--json", str(file)]
        benchmark.main([*given, "--models", "bprmf", "--", *small])
    found = json.loads(file.read_text())["results"]["bprmf"]
    assert found.keys() == sources.keys()
    assert found["few"]["ratio"] == 1
    assert all(each["ms"] > 0 for each in found.values())
