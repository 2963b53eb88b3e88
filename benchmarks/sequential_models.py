"""Training steps of the sequential models, forward and backward, and the shares of their operators.

    python benchmarks/sequential_models.py --json FILE

A step takes a batch of random item vectors to hidden states and back, without tables, loss and optimizer. "full"
sequences all have the longest length, which is also the cost of short ones padded to it; "short" sequences have 1 to
half of it, drawn uniformly, a quarter on average, much as real ones do.

Shares of a step's operator time come from torch's profiler: matrix products, attention kernels, and the rest, which is
the overhead. The machine must be idle.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from measured import write_measurements
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.profiler import ProfilerActivity, profile

from cove_dist.models.sequential.bert4rec import BERT4Rec
from cove_dist.models.sequential.car import CAR
from cove_dist.models.sequential.caser import Caser
from cove_dist.models.sequential.fans import FANS
from cove_dist.models.sequential.gru4rec import GRU4Rec
from cove_dist.models.sequential.sasrec import SASRec

MODELS = {model.__name__: model for model in (Caser, GRU4Rec, SASRec, BERT4Rec, CAR, FANS)}
DIM = 64
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::mkldnn_convolution", "aten::convolution_backward")


def build_step(name: str, lists: int, slots: int, kind: str) -> Callable[[], None]:
    """Build the forward and backward pass of one batch."""
    torch.manual_seed(0)
    model = MODELS[name](DIM, slots, slots)
    lengths = torch.randint(1, max(slots // 2, 2), (lists,)) if kind == "short" else torch.full((lists,), slots)
    mask = torch.arange(slots) < lengths.unsqueeze(1)
    items = torch.randn(lists, slots, DIM, requires_grad=True)
    gradient = torch.randn(lists, slots, DIM)

    def step() -> None:
        hidden = call(model, items, mask)
        hidden.backward(gradient[:, : hidden.shape[1]])
        model.zero_grad()

    return step


def call(model: nn.Module, items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """BERT4Rec with a fifth of the items masked; FANS with half of each list given and half to predict."""
    if isinstance(model, BERT4Rec):
        return model(items, mask, mask & (torch.rand(mask.shape) < 0.2))
    if isinstance(model, FANS):
        given, wanted = mask[:, ::2], mask[:, 1::2]
        return model(items[:, ::2], given, wanted.shape[1], target_mask=wanted)
    return model(items, mask)


def milliseconds(step: Callable[[], None], seconds: float) -> float:
    """Return the median of as many steps as the time allows, at least three."""
    step()
    times, deadline = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < deadline:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def shares(step: Callable[[], None]) -> dict[str, float]:
    """Return shares of the operators' time in three steps."""
    with profile(activities=[ProfilerActivity.CPU]) as record:
        for _ in range(3):
            step()
    spent = {"products": 0.0, "attention": 0.0, "rest": 0.0}
    for event in record.key_averages():
        attention = "scaled_dot_product" in event.key
        spent["attention" if attention else "products" if event.key in PRODUCTS else "rest"] += (
            event.self_cpu_time_total
        )
    return {kind: value / sum(spent.values()) for kind, value in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="MODEL")
    parser.add_argument("--lists", type=int, default=256, help="of a batch (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=50, help="of the longest list (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of measuring each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    table = Table("model", "lists", "ms a step", "lists/s", "matrix products", "attention", "rest")
    results = []
    for name in arguments.models:
        for kind in ("full", "short"):
            step = build_step(name, arguments.lists, arguments.slots, kind)
            spent = milliseconds(step, arguments.seconds)
            result = {"model": name, "lists": kind, "ms": spent, "lists_per_second": 1e3 * arguments.lists / spent}
            parts = shares(step)
            results.append(result | parts)
            cells = (
                f"{spent:.0f}",
                f"{result['lists_per_second']:,.0f}",
                *(f"{100 * p:.0f} %" for p in parts.values()),
            )
            table.add_row(name, kind, *cells)
    Console().print(table)
    if arguments.json:
        settings = {key: getattr(arguments, key) for key in ("lists", "slots", "threads")}
        write_measurements(arguments.json, {"settings": settings, "results": results})


if __name__ == "__main__":
    main()
