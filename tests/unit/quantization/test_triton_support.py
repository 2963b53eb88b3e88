"""When Triton is used and when not; that its compiler accepts the kernels."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import torch

from cove_dist.quantization import triton_support
from cove_dist.quantization.search import nearest_code
from tests.unit.quantization.triton_cases import DEVICE

ROOT = Path(__file__).parents[3]


def test_triton_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_support, "_installed", lambda: False)
    message = "search = 'triton': not installed. pip install triton, or use 'chunked'"
    with pytest.raises(ModuleNotFoundError, match=message):
        nearest_code(torch.zeros(3, 4), torch.zeros(5, 4), "triton")


def test_auto_on_cpu_needs_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cove_dist.quantization.triton_search", None)
    assert nearest_code(torch.eye(4), torch.eye(4)).tolist() == [0, 1, 2, 3]


def test_the_benchmark_times_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    kernel_times = importlib.import_module("triton_kernels").kernel_times
    times = kernel_times(vectors=8, codes=3, dim=4, passes=1, device=DEVICE)
    assert {"bare matmul", "search triton", "search triton_tf32x3", "add_rows sorted", "add_rows atomic"} <= set(times)
    assert min(times.values()) > 0
