"""The residual cascade of the benchmark has the same codes on 1, 2 and 4 ranks."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.distributed.ranks import run_ranks

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("residual_codes")
sys.path.remove(BENCHMARKS)

REQUEST = benchmark.Request(torch.randn(1500, 8, generator=torch.Generator().manual_seed(0)), (16, 8, 8), 3, 6)


def coded_by_rank(learning: str, start: str) -> tuple[np.ndarray, np.ndarray]:
    """Return codes and decoded vectors of this rank, as types that the test's process knows."""
    coded = benchmark.on_rank(REQUEST, learning, start)
    return coded.codes, coded.decoded


@pytest.mark.parametrize("learning", ["ema", "gradient"])
def test_one_two_and_four_ranks_have_the_same_codes(learning: str) -> None:
    single = benchmark.ours(REQUEST, learning, "random", precision=torch.float64)
    assert all(len(set(codes)) > 4 for codes in single.codes.T.tolist())
    for count in (2, 4):
        for codes, decoded in run_ranks(count, coded_by_rank, learning, "random"):
            assert np.array_equal(codes, single.codes)
            np.testing.assert_allclose(decoded, single.decoded, rtol=1e-9, atol=1e-12)


def test_ranks_that_start_by_kmeans_agree_and_decode_as_well() -> None:
    """Centres are drawn by another generator on every rank: as with another seed, codes differ."""
    first, second = run_ranks(2, coded_by_rank, "ema", "kmeans")
    assert np.array_equal(first[0], second[0]) and np.array_equal(first[1], second[1])
    exact = REQUEST.vectors.numpy()
    both = (benchmark.ours(REQUEST, precision=torch.float64).decoded, first[1])
    errors = [np.square(exact - decoded).sum() for decoded in both]
    assert errors[1] == pytest.approx(errors[0], rel=0.05)
