"""The launch programs on the device: training to the CPU's metric, and checkpoints that both devices read alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from clock import Bench
from inputs import TRAINED, overrides

import cove_dist
from cove_dist.runs import LOG_FILE, best_record, read_records
from results import Row

ROOT = Path(__file__).resolve().parents[2]
METRICS = {"ctr": "auc", "cf": "ndcg@10", "sequential": "paper_ndcg@5"}
WITHIN = 0.002  # of the CPU's validation metric: sums in another order, over some hundred steps
SAME = 1e-4  # of a metric of the same checkpoint on both devices
SECONDS = 240
# Adam of fused kernels updates the looked-up rows only, Adam on a CPU all rows; this one is the same on both.
SAME_OPTIMIZER = ("embeddings.optimizer.name=rowwise_adagrad", "embeddings.optimizer.learning_rate=0.02")


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    runs = TRAINED if not bench.tiny else TRAINED[1:2]
    started: dict[str, subprocess.Popen[bytes]] = {}

    def start() -> None:
        """Start all runs of the CPU at once, a thread each, while the device trains one after the other."""
        for run in runs:
            if label(*run) not in started:
                started[label(*run)] = train(bench, *run, "cpu")

    for run in runs:
        yield f"{label(*run)}, trained", partial(trained, bench, *run, start, started)
        yield f"{label(*run)}, checkpoint", partial(read_on_both, bench, *run)


def label(kind: str, model: str, cove: bool) -> str:
    return f"{model}_cove" if cove else model


def folder(bench: Bench, run: str, device: str) -> Path:
    return bench.work / "runs" / f"{run}_{device}"


def train(bench: Bench, kind: str, model: str, cove: bool, device: str) -> subprocess.Popen[bytes]:
    """Start ``launch/train.py`` under torchrun, as a user does, with one rank."""
    words = [*overrides(kind, model, bench.work, bench.tiny, cove), *SAME_OPTIMIZER]
    epochs = {"ctr": 1, "cf": 4, "sequential": 2}[kind] if not bench.tiny else 1
    words += [f"trainer.epochs={epochs}", f"trainer.early_stopping.metric={METRICS[kind]}", f"trainer.device={device}"]
    words += ["evaluation.ndcg_at=[5,10]", "seed=3", f"output={folder(bench, label(kind, model, cove), device)}"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    environment = os.environ | {"OMP_NUM_THREADS": "2", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    return subprocess.Popen([*torchrun, str(ROOT / "launch" / "train.py"), *words], env=environment)


def trained(
    bench: Bench,
    kind: str,
    model: str,
    cove: bool,
    start_on_cpu: Callable[[], None],
    on_cpu: dict[str, subprocess.Popen[bytes]],
) -> Row:
    """Compare the best validation metric of the device's run with that of the CPU's."""
    start_on_cpu()
    name, device = label(kind, model, cove), bench.device.type
    process = on_cpu[name] if device == "cpu" else train(bench, kind, model, cove, device)
    for each in (process, on_cpu[name]):
        if status := each.wait(timeout=SECONDS):
            raise RuntimeError(f"launch/train.py ended with {status}; its output is in log.txt")
    found, expected = (best_metric(folder(bench, name, each), METRICS[kind]) for each in (device, "cpu"))
    return {"ok": abs(found - expected) <= WITHIN, "metric": METRICS[kind], "device": found, "CPU": expected}


def best_metric(run: Path, metric: str) -> float:
    best = best_record(read_records(run / LOG_FILE), metric)
    assert best is not None, f"{run} has no validation record"
    return float(best[metric])


def read_on_both(bench: Bench, kind: str, model: str, cove: bool) -> Row:
    """Evaluate the checkpoints of both devices' runs on both devices; recommend and export codes on both."""
    name, differences = label(kind, model, cove), {}
    for written in dict.fromkeys((bench.device.type, "cpu")):
        metrics = {
            device: cove_dist.load(folder(bench, name, written), device=device).evaluate("test")
            for device in dict.fromkeys((bench.device.type, "cpu"))
        }
        here, there = metrics[bench.device.type], metrics["cpu"]
        assert here.keys() == there.keys() and here
        pairs = [(here[key], there[key]) for key in here]
        if any((a is None) != (b is None) for a, b in pairs):
            raise AssertionError(f"undefined on one device only: {json.dumps([here, there])}")
        gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
        differences[f"written on {written}"] = max(gaps)
    return {"ok": max(differences.values()) <= SAME, "metrics": len(here), **differences}
