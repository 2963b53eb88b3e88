"""The benchmark of oneDNN's kernels: it measures as often as it says."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

BENCHMARKS = str(Path(__file__).resolve().parents[2] / "benchmarks")
sys.path.insert(0, BENCHMARKS)
benchmark = importlib.import_module("kernel_cache")
sys.path.remove(BENCHMARKS)


def test_memory_is_measured_after_every_so_many_shapes() -> None:
    found = benchmark.grow(shapes=4, every=2)
    assert [number for number, _ in found] == [0, 2, 4]
    assert all(megabytes > 0 for _, megabytes in found)
