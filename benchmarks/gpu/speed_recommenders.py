"""Training steps of collaborative filtering and sequential models on the device beside the CPU's."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import torch
from clock import Bench, milliseconds
from inputs import overrides
from runs import batches_in_memory, build_trainer, endless_steps

from results import Row

MODELS = (("cf", "bprmf"), ("cf", "lightgcn"), ("sequential", "sasrec"), ("sequential", "bert4rec"))


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    for kind, model in MODELS:
        for cove in (False, True) if not bench.tiny else (True,):
            yield f"{model}{', COVE' if cove else ''}", partial(measure, bench, kind, model, cove)


def measure(bench: Bench, kind: str, model: str, cove: bool) -> Row:
    """Return steps per second, and seconds of an epoch's steps, from batches in memory."""
    words = overrides(kind, model, bench.work, bench.tiny, cove)
    trainer = build_trainer(words, bench)
    steps = endless_steps(trainer, batches_in_memory(trainer, 4))
    taken = milliseconds(lambda: next(steps), bench, warm_up=6)
    row: Row = {"steps/s": 1e3 / taken, "s/epoch": taken * len(trainer.train_loader) / 1e3}
    if bench.device.type == "cuda":
        on_cpu = build_trainer(words, bench, "cpu")
        row["CPU steps/s"] = 1 / seconds_on_cpu(endless_steps(on_cpu, batches_in_memory(on_cpu, 2)))
        row["x CPU"] = row["steps/s"] / row["CPU steps/s"]
        row["CPU threads"] = torch.get_num_threads()
    return row


def seconds_on_cpu(steps: Iterator[object], count: int = 3) -> float:
    next(steps)
    seconds = []
    for _ in islice(range(count), count):
        start = time.perf_counter()
        next(steps)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
