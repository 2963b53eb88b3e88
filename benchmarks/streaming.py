"""Speed and memory of the data stream of one rank: rows per second and resident memory over whole epochs.

    cove prepare data=synthetic output=data/synthetic
    python benchmarks/streaming.py data/synthetic --batch-size 4096 --json streaming.json

Nothing is done with the batches, so the speed is an upper bound on what training can be fed. Resident memory is that of
this process, sampled 20 times an epoch: it must be flat, whatever the number of rows. `--scan` first times only
pyarrow: decoding the same columns of every row group in one thread, which no stream of them can beat.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table

from cove_dist.training.memory import resident_mb
from data_pipeline.json_files import write_json
from data_pipeline.schema import Schema
from data_pipeline.streaming.columns import column_names
from data_pipeline.streaming.loader import StreamLoader, build_loader
from data_pipeline.streaming.stream import SHUFFLE_BUFFER

SAMPLES = 20


@dataclass(frozen=True)
class Epoch:
    epoch: int
    rows: int
    steps: int
    seconds: float
    first_batch_seconds: float
    cpu_seconds: float  # of this process
    resident_mb: list[float]  # SAMPLES evenly spaced over the epoch

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    loader = build_loader(
        arguments.folder,
        Schema.load(arguments.folder),
        arguments.split,
        arguments.batch_size,
        arguments.rank,
        arguments.world_size,
        workers=arguments.workers,
        shuffle=not arguments.no_shuffle,
        shuffle_buffer=arguments.shuffle_buffer,
    )
    if arguments.scan:
        scan(loader)
    before = resident_mb()
    epochs = [measure(loader, epoch) for epoch in range(arguments.epochs)]
    Console().print(table(epochs, before))
    if arguments.json:
        report = {
            "settings": {name: str(value) for name, value in vars(arguments).items()},
            "resident_mb_before": before,
            "epochs": [asdict(epoch) | {"rows_per_second": epoch.rows_per_second} for epoch in epochs],
        }
        write_json(arguments.json, report)


def scan(loader: StreamLoader) -> None:
    """Print how fast pyarrow decodes this rank's columns, a row group at a time, in one thread."""
    groups, names = loader.stream.plan.groups, column_names(loader.stream.plan.schema)
    start, rows = time.perf_counter(), 0
    for path in groups.paths:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                rows += len(file.read_row_group(group, columns=names, use_threads=False))
    seconds = time.perf_counter() - start
    Console().print(f"pyarrow alone: {rows:,} rows in {seconds:.2f} s, {rows / seconds / 1e6:.2f} million rows/s")


def measure(loader: StreamLoader, epoch: int) -> Epoch:
    """Stream one epoch."""
    loader.set_epoch(epoch)
    every = max(1, len(loader) // SAMPLES)
    rows, resident, first = 0, [], 0.0
    start, cpu_start = time.perf_counter(), time.process_time()
    for step, batch in enumerate(loader):
        first = first or time.perf_counter() - start
        rows += len(batch)
        if step % every == 0:
            resident.append(resident_mb())
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    return Epoch(epoch, rows, len(loader), seconds, first, cpu_seconds, resident)


def table(epochs: list[Epoch], before: float) -> Table:
    table = Table(
        title=f"Streaming; {before:.0f} MB resident before the first batch", caption="resident: at first / at most"
    )
    for heading in (
        "epoch",
        "rows",
        "seconds",
        "first batch ms",
        "million rows/s",
        "CPU ns/row",
        "resident MB",
    ):
        table.add_column(heading, justify="right")
    for epoch in epochs:
        resident = epoch.resident_mb
        table.add_row(
            f"{epoch.epoch}",
            f"{epoch.rows:,}",
            f"{epoch.seconds:.2f}",
            f"{epoch.first_batch_seconds * 1e3:.0f}",
            f"{epoch.rows_per_second / 1e6:.2f}",
            f"{epoch.cpu_seconds / epoch.rows * 1e9:.0f}",
            f"{resident[0]:.0f} / {max(resident):.0f}",
        )
    return table


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a prepared folder")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch-size", type=int, default=4096, help="rows per rank and step")
    parser.add_argument("--rank", type=int, default=0)
    parser.add_argument("--world-size", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0, help="threads that read ahead")
    parser.add_argument("--no-shuffle", action="store_true")
    parser.add_argument("--shuffle-buffer", type=int, default=SHUFFLE_BUFFER, help="rows")
    parser.add_argument("--scan", action="store_true", help="time pyarrow alone first")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all numbers, with every memory sample")
    return parser.parse_args()


if __name__ == "__main__":
    main()
