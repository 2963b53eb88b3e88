"""Training steps of the click-through rate heads, with and without COVE, beside TorchRec's bare loop.

A step is what the trainer does for one, except reading the data: batches are in page-locked memory, and their copy is
part of the step. ``matmul share``: FLOP of the step's matrix products at the measured rate of its precision, over its
time. ``gaps``: the share of the step in which no kernel runs, from the profiler's kernel times and the time without the
profiler. Goals: COVE at most 5 % of a step, 0.95 of the bare loop, gaps below 10 % at batch 65,536.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice

import torch
from bare_loop import bare_steps
from clock import PRECISIONS, Bench, matmul_precision, matmul_rate, milliseconds
from inputs import MODELS, overrides
from runs import build_trainer, endless_steps
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cove_dist.training.trainer import Trainer
from data_pipeline.batch import Batch
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from results import Row

BATCHES = 4  # in memory, repeated
BATCH_SIZES = ((65_536, 5_000), (64, 32))


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    """The first head in full, then the others at the large batch, then what is left."""
    first, *others = MODELS["ctr"] if not bench.tiny else ("deepfm", "dlrm")
    large, small = BATCH_SIZES[bench.tiny]
    looks = [(head, rows, False) for head, rows in ((first, large), *((head, large) for head in others))]
    looks += [(head, small, False) for head in (first, *others)]
    looks += [(head, rows, True) for rows in (large, small) for head in (first, *others)]
    for head, rows, compiled in looks if not bench.tiny else looks[:2]:
        for cove in (False, True):
            for precision in PRECISIONS[1 if compiled or bench.tiny else 0 :]:
                name = f"{head}{', COVE' if cove else ''}, {rows:,}, {precision}{', compiled' if compiled else ''}"
                yield name, partial(measure, bench, head, cove, rows, precision, compiled)
        for precision in () if compiled else PRECISIONS[: 1 if bench.tiny else 3]:
            yield f"bare loop, {head}, {rows:,}, {precision}", partial(measure_bare, bench, head, rows, precision)


@cache
def batches(bench: Bench, rows: int) -> list[Batch]:
    config = trainer_of(bench, "deepfm", False, False).config
    loader = build_loader(
        config.data.path, Schema.load(config.data.path), "train", rows, shuffle=True, pin_memory=not bench.tiny
    )
    return list(islice(iter(loader), BATCHES))


_latest: dict[tuple[str, bool, bool], Trainer] = {}


def trainer_of(bench: Bench, head: str, cove: bool, compiled: bool) -> Trainer:
    """Return the trainer of a head, which serves all batch sizes and precisions; only the latest is kept."""
    key = head, cove, compiled
    if key not in _latest:
        _latest.clear()
        gc.collect()  # sharded models hold reference cycles, and their tables with them
        trainer = build_trainer(overrides("ctr", head, bench.work, bench.tiny, cove), bench)
        if compiled:
            trainer.train_state.model.module.objective.head.compile()
        _latest[key] = trainer
    return _latest[key]


def measure(bench: Bench, head: str, cove: bool, rows: int, precision: str, compiled: bool) -> Row:
    """Return samples per second and what the step is made of."""
    given = batches(bench, rows)
    trainer = trainer_of(bench, head, cove, compiled)
    objective = trainer.train_state.model.module.objective
    getattr(objective, "module", objective).precision = torch.bfloat16 if precision == "bfloat16" else torch.float32
    steps = endless_steps(trainer, given)
    with matmul_precision(precision):
        time = milliseconds(lambda: next(steps), bench, warm_up=6)
        row: Row = {"samples/s": 1e3 * rows / time, "ms": time, "host ms": host_share(bench, steps)}
        if bench.device.type == "cuda" and (kernels := kernel_milliseconds(steps)):  # 0: the profiler saw none
            row["gaps"] = max(0.0, 1 - kernels / time)
        if not compiled:
            row |= matmul_share(bench, steps, precision, time)
    return row


def matmul_share(bench: Bench, steps: Iterator[object], precision: str, time: float) -> Row:
    """Return ``matmul share`` of a step of ``time`` milliseconds, or why its FLOP could not be counted."""
    try:
        with FlopCounterMode(display=False) as counter:
            next(steps)
    except Exception as error:  # the times measured before are kept
        return {"matmul share": f"not counted: {type(error).__name__}: {error}"[:100]}
    return {"matmul share": 1e3 * counter.get_total_flops() / matmul_rate(bench, precision) / time}


def measure_bare(bench: Bench, head: str, rows: int, precision: str) -> Row:
    given, config = batches(bench, rows), trainer_of(bench, head, False, False).config
    autocast = torch.bfloat16 if precision == "bfloat16" else torch.float32
    with matmul_precision(precision):
        step = bare_steps(config, Schema.load(config.data.path), given, bench, autocast)
        time = milliseconds(step, bench, warm_up=6)
    return {"samples/s": 1e3 * rows / time, "ms": time}


def host_share(bench: Bench, steps: Iterator[object], count: int = 2) -> float:
    """Return the milliseconds that the host takes to launch a step, which the device must not wait for.

    The launch queue holds few steps: once it is full, the host waits, and its time would be the device's.
    """
    from time import perf_counter

    if bench.device.type == "cuda":
        torch.cuda.synchronize()
    start = perf_counter()
    for _ in range(bench.size(count, 1)):
        next(steps)
    return (perf_counter() - start) * 1e3 / bench.size(count, 1)


def kernel_milliseconds(steps: Iterator[object], count: int = 3) -> float:
    """Return the milliseconds of a step in which at least one kernel runs, copies excluded."""
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        for _ in range(count):
            next(steps)
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
        and not event.name.startswith(("Mem", "##"))  # copies, and the ranges that TorchRec marks
        and not getattr(event, "is_user_annotation", False)
    )
    return union(spans) / 1e3 / count


def union(spans: list[tuple[float, float]]) -> float:
    """Return the length of the union of sorted intervals.

    >>> union([(0, 4), (1, 2), (3, 5), (7, 8)])
    6
    """
    total, reached = 0, float("-inf")
    for start, end in spans:
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total
