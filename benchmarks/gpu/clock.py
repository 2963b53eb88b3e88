"""What a section knows about its machine, and the times of steps on it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import torch

PRECISIONS = ("float32", "tf32", "bfloat16")


@dataclass(frozen=True)
class Bench:
    """Where a section runs.

    Attributes:
        device: Device that is measured; the CPU in a dry run.
        tiny: Whether sizes are those of a dry run, which shows that everything runs and nothing else.
        work: Folder for data and runs.
    """

    device: torch.device
    tiny: bool
    work: Path

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(step: Callable[[], object], bench: Bench, seconds: float = 0.4, warm_up: int = 3) -> float:
    """Return the median time of a step over about ``seconds``, at least 5 steps.

    On CUDA, events before and after every step are recorded without waiting in between, so that the host's part of a
    step is hidden by the one before it, as in training.
    """
    for _ in range(1 if bench.tiny else warm_up):
        step()
    wait(bench.device)
    start = time.perf_counter()
    step()
    wait(bench.device)
    count = 2 if bench.tiny else max(5, min(200, int(seconds / max(time.perf_counter() - start, 1e-6))))
    if bench.device.type != "cuda":
        return statistics.median(_on_host(step) for _ in range(count))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    events[0].record()
    for event in events[1:]:
        step()
        event.record()
    torch.cuda.synchronize(bench.device)
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(events))


def _on_host(step: Callable[[], object]) -> float:
    start = time.perf_counter()
    step()
    return (time.perf_counter() - start) * 1e3


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    """Multiply float32 matrices as "float32", or with "tf32" operands; "bfloat16" is for autocast to choose.

    This includes the products of cuDNN's layers, which have TF32 operands by default.
    """
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@cache
def matmul_rate(bench: Bench, precision: str) -> float:
    """Measure the FLOP per second of a product of two large square matrices of random numbers."""
    size = bench.size(8192 if precision != "float32" else 4096, 64)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = torch.randn(2, size, size, device=bench.device).to(dtype)
    with matmul_precision(precision):
        return 2e3 * size**3 / milliseconds(lambda: left @ right, bench)


@cache
def copy_rate(bench: Bench) -> float:
    """Measure the bytes per second of a large copy, read and written."""
    source = torch.randn(bench.size(1 << 28, 1 << 12), device=bench.device)
    target = torch.empty_like(source)
    return 2e3 * source.nbytes / milliseconds(lambda: target.copy_(source), bench)
