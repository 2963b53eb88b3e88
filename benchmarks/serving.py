"""Latency of serving on this machine: scoring 500 candidates, and the 20 best of a million items; p50 and p99.

    python benchmarks/serving.py --json FILE

Scoring: DeepFM with COVE at the paper's settings (d = 64, three layers of 1,000 units, codebooks of 100 and 10), one
user and 500 candidates of 100,000 items, by

- the exported program (`torch.export`), with float32 and with int8 tables, which hold vectors fused with their codes;
- the same as ONNX, where ONNX Runtime is installed;
- the same head with quantizers that search the codes at every request, which is what fusing beforehand saves.

Top 20: inner products of one query with a million vectors of 64 numbers, by torch (a product and `topk`: exact), by
FAISS (`IndexFlatIP`: exact) and by an inverted file (`IndexIVFFlat`, a sixteenth of whose lists are searched), with the
share of the exact 20 that it finds. Vectors and queries are drawn around 1,000 centres.

Weights are random: the time depends on no value but the recall of the inverted file. In a round the contestants take
turns, a request each; every request has other ids or another query. CPU time is that of the process: on a machine
that other programs load, it says more of an idle machine than the clock does.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from measured import write_measurements
from rich.console import Console
from rich.table import Table

from cove_dist.embeddings.serving import Precision, ServingTable
from cove_dist.inference.programs import exported_program, saved_onnx, saved_torch
from cove_dist.models.ctr.deepfm import DeepFM
from cove_dist.quantization import CascadedQuantizer
from cove_dist.tasks.ctr.program import ClickProbabilities
from cove_dist.tasks.inference import Program, ProgramInput
from data_pipeline.schema import Categorical, Schema

DIM, USER_LEVELS, ITEM_LEVELS, HIDDEN, TOP = 64, (100, 10), (100, 10), (1000, 1000, 1000), 20
NO_DENSE = ProgramInput(torch.zeros(3, 0), ("rows", 0), "")
Request = Callable[[], Any]  # answers one request


class Clicks:
    """DeepFM with COVE, with random weights.

    Args:
        users, items: Numbers of ids.
        hidden: Sizes of the head's layers.
    """

    def __init__(self, users: int, items: int, hidden: Sequence[int] = HIDDEN) -> None:
        columns = (Categorical("user", users, users, "user"), Categorical("item", items, items, "item"))
        self.schema, self.names = Schema("benchmark", "label", columns, (), {}), [each.table_name for each in columns]
        self.raw = [torch.randn(count, DIM) * 0.1 for count in (users, items)]
        self.quantizers = [CascadedQuantizer(DIM, levels).eval() for levels in (USER_LEVELS, ITEM_LEVELS)]
        self.first = [ServingTable(torch.randn(count, 1)) for count in (users, items)]
        self.head = DeepFM(2, DIM, 0, hidden_units=hidden).eval()

    @torch.no_grad()
    def program(self, precision: Precision) -> Program:
        """Return the program that `cove export what=[model]` writes."""
        fused = [quantizer(raw).fused for quantizer, raw in zip(self.quantizers, self.raw, strict=True)]
        tables = [ServingTable(each, precision) for each in fused]
        named = [dict(zip(self.names, each, strict=True)) for each in (tables, self.first)]
        module = ClickProbabilities(self.head, self.schema, {}, *named).eval()
        inputs = {"ids": ProgramInput(torch.tensor([[0, 0], [0, 1], [1, 1]]), ("rows", 2), ""), "dense": NO_DENSE}
        return Program(module, inputs, [], "scores", "")

    @torch.no_grad()
    def searching(self, ids: torch.Tensor) -> torch.Tensor:
        """Score ids ``[rows, 2]`` with quantizers that search the codes of every row."""
        parts = zip(self.quantizers, self.raw, ids.T, strict=True)
        fields = torch.stack([quantizer(raw[column]).fused for quantizer, raw, column in parts], dim=1)
        first = torch.cat([table(column) for table, column in zip(self.first, ids.T, strict=True)], dim=1)
        return torch.sigmoid(self.head(fields, torch.zeros(len(ids), 0), first))


def scoring(users: int, items: int, candidates: int, hidden: Sequence[int], folder: Path) -> dict[str, Request]:
    """Return the contestants of scoring candidates; a request scores random candidates for a random user."""
    clicks, dense = Clicks(users, items, hidden), torch.zeros(candidates, 0)

    def drawn() -> torch.Tensor:
        user = torch.randint(users, (1,)).expand(candidates)
        return torch.stack([user, torch.randint(items, (candidates,))], dim=1)

    found: dict[str, Request] = {}
    for precision in ("float32", "int8"):
        program = clicks.program(precision)
        run = saved_torch(exported_program(program), program, folder / f"{precision}.pt2")
        found[f"torch.export, {precision} tables"] = lambda run=run: run(drawn(), dense)
    if importlib.util.find_spec("onnxruntime") is not None:
        program = clicks.program("float32")
        run = saved_onnx(exported_program(program), program, folder / "model.onnx", torch.get_num_threads())
        found["ONNX Runtime, float32 tables"] = lambda run=run: run(drawn(), dense)
    found["eager, codes searched at every request"] = lambda: clicks.searching(drawn())
    return found


def vectors(count: int, centres: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Return float32 ``[count, d]`` around random centres."""
    spread = draw.standard_normal((count, centres.shape[1]), np.float32)
    return centres[draw.integers(len(centres), size=count)] + 0.5 * spread


def retrieval(items: int, seed: int) -> tuple[dict[str, Request], float]:
    """Return the contestants of the best 20 items, and the recall of the inverted file over 100 queries."""
    draw = np.random.default_rng(seed)
    centres = draw.standard_normal((min(1000, items // 10), DIM), np.float32)
    keys = vectors(items, centres, draw)
    exact = faiss.IndexFlatIP(DIM)
    exact.add(keys)
    lists = max(4, int(items**0.5))
    inverted = faiss.IndexIVFFlat(faiss.IndexFlatIP(DIM), DIM, lists, faiss.METRIC_INNER_PRODUCT)
    inverted.train(keys[draw.choice(items, size=min(items, 40 * lists), replace=False)])
    inverted.add(keys)
    inverted.nprobe = max(1, lists // 16)
    transposed = torch.from_numpy(keys).T

    def query() -> np.ndarray:
        return vectors(1, centres, draw)

    queries = vectors(100, centres, draw)
    _, best = exact.search(queries, TOP)
    _, listed = inverted.search(queries, TOP)
    recall = float(np.mean([len(set(a) & set(b)) / TOP for a, b in zip(best, listed, strict=True)]))
    return {
        "torch, exact": lambda: (torch.from_numpy(query()) @ transposed).topk(TOP),
        "FAISS flat, exact": lambda: exact.search(query(), TOP),
        "FAISS inverted file": lambda: inverted.search(query(), TOP),
    }, recall


def latencies(contestants: Mapping[str, Request], requests: int) -> dict[str, list[tuple[float, float]]]:
    """Return the seconds of every request, in turns: by the clock, and of CPU."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for number in range(-3, requests):
        for name, answer in contestants.items():
            begin, of_cpu = time.perf_counter(), time.process_time()
            answer()
            if number >= 0:  # those before are a warm-up
                seconds[name].append((time.perf_counter() - begin, time.process_time() - of_cpu))
    return seconds


def summarize(seconds: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Return p50 and p99 of every contestant by the clock, and of its CPU time, in milliseconds."""
    summary = {}
    for name, each in seconds.items():
        clock, cpu = 1e3 * np.array(each).T
        kinds = {"p": clock, "cpu_p": cpu}
        summary[name] = {
            f"{kind}{share}_ms": float(np.percentile(values, share))
            for kind, values in kinds.items()
            for share in (50, 99)
        }
    return summary


def show(title: str, summary: Mapping[str, Mapping[str, float]]) -> Table:
    keys = ("p50_ms", "p99_ms", "cpu_p50_ms", "cpu_p99_ms")
    table = Table(title, "p50, ms", "p99, ms", "CPU p50, ms", "CPU p99, ms")
    for name, values in summary.items():
        table.add_row(name, *(f"{values[key]:.2f}" for key in keys))
    return table


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--users", type=int, default=10_000)
    add("--items", type=int, default=100_000, help="of the click-through rate model (default: %(default)s)")
    add("--candidates", type=int, default=500)
    add("--hidden", type=int, nargs="+", default=list(HIDDEN))
    add("--retrieved", type=int, default=1_000_000, help="items of the top 20 (default: %(default)s)")
    add("--requests", type=int, default=300)
    add("--threads", type=int, default=1)
    add("--seed", type=int, default=0)
    add("--json", type=Path, metavar="FILE", help="settings, summary and the load of the machine")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        given = (arguments.users, arguments.items, arguments.candidates, arguments.hidden, Path(folder))
        scored = summarize(latencies(scoring(*given), arguments.requests))
    contestants, recall = retrieval(arguments.retrieved, arguments.seed)
    listed = summarize(latencies(contestants, arguments.requests))
    console = Console()
    console.width = max(console.width, 100)
    console.print(show(f"scoring {arguments.candidates} candidates", scored))
    console.print(show(f"top {TOP} of {arguments.retrieved:,} items", listed))
    console.print(
        f"recall of the inverted file: {recall:.3f}; load before and after: {load:.1f}, {os.getloadavg()[0]:.1f}"
    )
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        loads = {"load_before": load, "load_after": os.getloadavg()[0], "cores": os.cpu_count()}
        summary = {"scoring": scored, "top_20": listed, "recall_of_inverted_file": recall}
        write_measurements(arguments.json, {"settings": settings, **loads, **summary})


if __name__ == "__main__":
    main()
