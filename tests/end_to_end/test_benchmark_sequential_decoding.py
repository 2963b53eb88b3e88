"""The benchmark of decoding measures what it says, and sums up rightly."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("sequential_decoding")
sys.path.remove(BENCHMARKS)


def test_every_list_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, list[int]] = {}

    def counted(model, catalogue, request, depth) -> None:
        assert request.targets.tolist() == request.lengths.tolist() == [3] * len(request.items)
        sizes.setdefault(type(model).__name__, []).append(len(request.items))

    monkeypatch.setattr(benchmark, "continue_sequences", counted)
    benchmark.measure_round((20, 3), lists=7, batch=4)
    assert sizes == {"FANS": [4, 4, 3], "BERT4Rec": [4, 4, 3]}  # the first is the warm-up


def test_a_round_has_positive_seconds() -> None:
    assert all(seconds > 0 for seconds in benchmark.measure_round((20, 2), lists=3, batch=2).values())


def test_medians_are_per_thousand_sequences_and_ratios_of_the_same_round() -> None:
    rounds = [{"FANS": f, "BERT4Rec": b, "ranking": 1.0} for f, b in ((1.0, 2.0), (2.0, 8.0), (4.0, 4.0))]
    found = benchmark.summarize((20, 2), rounds, lists=500)
    assert (found["FANS"], found["BERT4Rec"], found["ranking"]) == (4.0, 8.0, 2.0)
    assert (found["ratio"], found["lowest"], found["highest"]) == (2.0, 1.0, 4.0)
