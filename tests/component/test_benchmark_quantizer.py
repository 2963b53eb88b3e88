"""The contestants of the quantizer's benchmark compute the same thing, can be measured, and are summed up rightly."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cove_dist.quantization import CascadedQuantizer

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark, growth, rivals = map(importlib.import_module, ("quantizer", "quantizer_growth", "quantizer_rivals"))
sys.path.remove(BENCHMARKS)

SIZE = benchmark.Size(64, (12, 3))
# Compiling would take most of the time of this file.
INSTALLED = [name for name, c in benchmark.ALL.items() if c.installed and name != "search_compiled"]


def outcome(name: str):
    return rivals.CONTESTANTS[name].build(rivals.build_problem(SIZE.vectors, SIZE.levels))()


@pytest.mark.parametrize("name", ["one_hot", "ours", "ours_zipf", "ours_distinct"])
def test_outcomes_agree(name: str) -> None:
    expected = outcome("plain")
    assert all(gradient.any() for gradient in (expected.grad_z, *expected.grad_codebooks))
    torch.testing.assert_close(outcome(name), expected)


def test_ids_of_the_problem() -> None:
    """Equal ids have equal vectors, as the quantizer requires; Zipf's repeat and the others do not."""
    problem = rivals.build_problem(SIZE.vectors, SIZE.levels)
    distinct, inverse = problem.zipf_ids.unique(return_inverse=True)
    assert len(distinct) < SIZE.vectors
    for i in range(len(distinct)):
        assert len(problem.z[inverse == i].unique(dim=0)) == 1
    assert len(problem.distinct_ids.unique()) == SIZE.vectors


@pytest.mark.parametrize("name", INSTALLED)
def test_measured(name: str) -> None:
    measurement = benchmark.measure(name, SIZE, benchmark.Settings(seconds=0, limit=0))
    assert measurement.passes == benchmark.PASSES
    assert min(measurement.seconds, measurement.matmul_seconds, measurement.ratio) > 0
    assert not measurement.missing
    if name == "vector_quantize":
        check_vector_quantize()


def check_vector_quantize() -> None:
    """Equal codes, half the loss at its gradient, as its builder says; level 2 has no level above to pull it."""
    problem = rivals.build_problem(SIZE.vectors, SIZE.levels)
    ours = CascadedQuantizer(rivals.DIM, SIZE.levels, beta=rivals.BETA, codebook_gradient="quantization")
    with torch.no_grad():
        for parameter, start in zip(ours.codebooks, problem.codebooks, strict=True):
            parameter.copy_(start)
    forward = lambda z: ours(z)[::2]  # noqa: E731
    expected = rivals.forward_and_backward(problem, forward, list(ours.codebooks))()
    actual = outcome("vector_quantize")
    torch.testing.assert_close(actual.fused, expected.fused)
    torch.testing.assert_close(2 * actual.loss, expected.loss)
    torch.testing.assert_close(actual.grad_codebooks[-1].squeeze(0), expected.grad_codebooks[-1])


def measurements(*ratios: float) -> list:
    return [benchmark.Measurement(ratio * 0.1, 0.1, ratio, peak_mb=5, passes=2) for ratio in ratios]


def test_summary() -> None:
    size = benchmark.Size(65_536, (500, 10))
    stopped = benchmark.Measurement(missing="> 30 s")
    measured = {
        "ours": measurements(1.2, 1.7, 1.4),
        "ours_zipf": measurements(1.2, 1.7, 1.7),
        "plain": measurements(3.6, 3.4, 2.6),
        "vector_quantize": [stopped],
        "search_faiss": [replace(stopped, missing="not installed")],
    }
    summary = {name: benchmark.summarize(name, size, measured, limit=30) for name in measured}
    assert summary["ours"]["goal"] == "<= 1.4: met"
    assert summary["ours_zipf"]["goal"] == "<= 1.4: missed"
    plain = summary["plain"]
    assert (plain["ratio"], plain["lowest"], plain["highest"]) == (3.4, 2.6, 3.6)
    assert plain["ms"] == pytest.approx(340)
    assert plain["times_ours"] == pytest.approx(2.0)  # round by round: 3, 2, 1.86
    assert plain["goal"] == ">= 2 x ours: met"
    assert summary["vector_quantize"]["times_ours"] == pytest.approx(30 / 0.14)
    assert summary["vector_quantize"]["goal"] == ">= 10 x ours: met"
    assert benchmark.summarize("vector_quantize", size, measured, limit=1)["goal"] == ">= 10 x ours: unknown"
    assert benchmark.cells(summary["search_faiss"]) == ("not installed", "", "", "", "", "")


def test_exponent() -> None:
    line = [growth.Point(x, SIZE, ms=3 * x**0.5, ratio=1, peak_mb=2 * x) for x in (1, 10, 1000)]
    assert growth.exponent(line, "ms") == pytest.approx(0.5)
    assert growth.exponent(line, "peak_mb") == pytest.approx(1)
