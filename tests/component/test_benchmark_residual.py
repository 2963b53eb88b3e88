"""The benchmark of residual codes: every contestant at a tiny size, and its measurements against brute force."""

from __future__ import annotations

import importlib
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark, contestants = map(importlib.import_module, ("residual_codes", "residual_contestants"))
sys.path.remove(BENCHMARKS)

VECTORS = torch.randn(300, 6, generator=torch.Generator().manual_seed(0))
LEVELS = (8, 4)


@pytest.fixture(scope="module")
def records() -> dict:
    runs = [benchmark.compare(contestants.Request(VECTORS, LEVELS, seed, 40), queries=20) for seed in range(2)]
    return {name: [run[name] for run in runs] for name in runs[0]}


def test_every_contestant_is_measured_with_every_seed(records: dict) -> None:
    assert list(records) == list(contestants.CONTESTANTS)
    for name, (first, second) in records.items():
        assert (first["seed"], second["seed"]) == (0, 1)
        for record in (first, second):
            assert 0 < record["error"] < 1 and 0 <= record["unique"] <= 1 and 1 < record["largest"] < 300, name
            assert len(record["used"]) == 2 and all(0 < used <= 1 for used in record["used"]), name
            assert 10 / 299 < record["recall"] < 1, name
    shown = benchmark.shown("item", LEVELS, records)
    assert shown.row_count == len(records)


@pytest.mark.parametrize("name", ["ours, ema", "ours, gradient", "k-means", "FAISS, beam 1"])
def test_residual_quantizers_are_about_as_good_as_one_another(records: dict, name: str) -> None:
    best = min(record["error"] for runs in records.values() for record in runs)
    assert max(record["error"] for record in records[name]) < 1.15 * best


@pytest.mark.parametrize("name", contestants.CONTESTANTS)
def test_decoded_vectors_are_a_function_of_the_codes(name: str) -> None:
    coded = contestants.CONTESTANTS[name](contestants.Request(VECTORS, LEVELS, 0, 4))
    assert coded.codes.shape == (300, 2) and coded.decoded.shape == (300, 6)
    assert (coded.codes.min(axis=0) >= 0).all() and (coded.codes.max(axis=0) < LEVELS).all()
    by_tuple: dict = {}
    for codes, vector in zip(coded.codes.tolist(), coded.decoded, strict=True):
        np.testing.assert_allclose(by_tuple.setdefault(tuple(codes), vector), vector, rtol=1e-5, atol=1e-5)


def test_measurements_of_known_codes() -> None:
    """Four points on a line; two of them share a tuple of codes."""
    vectors = np.array([[0.0], [1.0], [3.0], [6.0]])
    codes = np.array([[0, 0], [0, 0], [0, 1], [1, 0]])
    decoded = np.array([[0.5], [0.5], [3.0], [5.0]])
    found = benchmark.score(np.repeat(vectors, 4, axis=0), tiled(codes, decoded), np.arange(3), (2, 2))
    assert found["error"] == pytest.approx((0.25 + 0.25 + 0 + 1) / np.square(vectors - 2.5).sum())
    assert (found["unique"], found["largest"]) == (0, 8)
    share = np.array([0.75, 0.25])
    assert found["used"][0] == pytest.approx(np.exp(-(share * np.log(share)).sum()) / 2)


def tiled(codes: np.ndarray, decoded: np.ndarray):
    return contestants.Coded(np.repeat(codes, 4, axis=0), np.repeat(decoded, 4, axis=0))


def test_recall_is_the_mean_over_all_orders_of_equally_near_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "K", 2)
    exact = np.array([[0.0], [1.0], [2.0], [4.0], [8.0]])
    tuples, of_tuple = np.array([[0.0], [3.0], [7.0]]), np.array([0, 1, 1, 1, 2])
    near = {1, 2}  # of vector 0
    found = [len(near & set(both)) / 2 for both in itertools.combinations([1, 2, 3], 2)]  # all three at distance 3
    assert benchmark.recall(exact, tuples, of_tuple, np.array([0])) == pytest.approx(np.mean(found))
    apart = np.array([[0.0], [1.0], [2.5], [4.25], [8.0]])
    assert benchmark.recall(apart, apart, np.arange(5), np.arange(5)) == 1
