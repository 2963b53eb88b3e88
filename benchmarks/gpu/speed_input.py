"""Samples per second of the loader alone, into page-locked memory and onto the device, to hold beside the heads'."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from clock import Bench, wait
from inputs import wait_for

from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from results import Row


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    for rows in (65_536, 5_000) if not bench.tiny else (64,):
        for workers in (1, 4, 8, 12) if not bench.tiny else (1,):
            yield f"{rows:,} rows, {workers} threads", partial(measure, bench, rows, workers)


def measure(bench: Bench, rows: int, workers: int) -> Row:
    """Time the second epoch; the first one opens the files."""
    folder: Path = wait_for("ctr", bench.work)
    cuda = bench.device.type == "cuda"
    loader = build_loader(folder, Schema.load(folder), "train", rows, workers=workers, shuffle=True, pin_memory=cuda)
    return {"samples/s": speed(loader, bench, moved=False), "onto the device": speed(loader, bench, moved=True)}


def speed(loader: object, bench: Bench, moved: bool) -> float:
    for _ in range(2):
        start, count = time.perf_counter(), 0
        for batch in loader:
            count += len(batch)
            if moved:
                batch.to(bench.device, non_blocking=True)
        wait(bench.device)
    return count / (time.perf_counter() - start)
