"""Rows per second of the data stream next to other readers of the same Parquet files, in one run, with one thread.

    python benchmarks/stream.py --json FILE
    python benchmarks/stream.py --data data/mine --rounds 3

Nothing is done with the batches, so a speed is an upper bound on what training can be fed. Contestants, in turns:

- scan: pyarrow decodes the columns of every row group, whole, without checks or batches
- stream: this project's stream into batches of `KeyedJaggedTensor`, with every value and page checksum checked
- Dataset: a map-style `torch.utils.data.Dataset` of arrays in memory with a `DataLoader`, over the first `--map-rows`

Ratios are CPU times of the scan over those of a contestant, taken round by round, since other programs distort seconds
more than CPU time. Resident memory is sampled 20 times an epoch: it must be flat, whatever the number of rows. Without
`--data` a folder of `--rows` rows of a user, an item and a label is written first, as `cove prepare` writes it.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from measured import write_measurements
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader, Dataset

from cove_dist.training.memory import resident_mb
from data_pipeline.digests import digest_folder
from data_pipeline.parquet_files import write_parquet
from data_pipeline.schema import Categorical, Schema, Split
from data_pipeline.streaming.columns import column_names
from data_pipeline.streaming.loader import build_loader
from data_pipeline.streaming.settings import SHUFFLE_BUFFER

SAMPLES = 20
IDS, FILES, CHUNK = 1_000_000, 8, 500_000  # of the data that are written
SCAN, STREAM, DATASET = "scan", "stream", "Dataset"

Reader = Callable[[], Iterator[int]]  # yields the rows of every batch


@dataclass(frozen=True)
class Epoch:
    """One epoch of one contestant. A scan has neither batches nor an order: it is that of all cases of a round."""

    loader: str
    round: int
    shuffle: bool
    batch_size: int
    rows: int
    seconds: float
    cpu_seconds: float  # of the process
    resident_mb: list[float]  # at most SAMPLES, evenly spaced over the epoch


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(argv)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    epochs: list[Epoch] = []
    with ExitStack() as stack:
        folder = arguments.data
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_data(folder, arguments.rows)
        for number in range(arguments.rounds):
            for epoch in measure_round(folder, number, arguments):
                epochs.append(epoch)
                print(f"round {number}: {epoch.loader}, {epoch.seconds:.1f} s", file=sys.stderr, flush=True)
    cases = summarize(epochs)
    Console(width=140).print(table(cases))
    if arguments.json:
        settings = {
            name: value if isinstance(value, int | list) else str(value) for name, value in vars(arguments).items()
        }
        content = {"settings": settings, "cases": cases, "epochs": [asdict(epoch) for epoch in epochs]}
        write_measurements(arguments.json, content)


def measure_round(folder: Path, number: int, arguments: argparse.Namespace) -> Iterator[Epoch]:
    """Measure every contestant once in every case, after one scan."""
    schema = Schema.load(folder)
    yield measure(SCAN, number, False, 0, partial(scan, folder, schema))
    for shuffle in (False, True):
        for size in arguments.batch_sizes:
            yield measure(STREAM, number, shuffle, size, partial(stream, folder, schema, size, shuffle, arguments))
            if arguments.map_rows:
                loader = DataLoader(InMemory(folder, schema, arguments.map_rows), size, shuffle=shuffle)
                yield measure(DATASET, number, shuffle, size, partial(map, lambda batch: len(batch[-1]), loader))


def stream(folder: Path, schema: Schema, size: int, shuffle: bool, arguments: argparse.Namespace) -> Iterator[int]:
    """Yield the rows of the batches of this project's stream."""
    buffer, workers = arguments.shuffle_buffer, arguments.workers
    return map(
        len, build_loader(folder, schema, "train", size, workers=workers, shuffle=shuffle, shuffle_buffer=buffer)
    )


def measure(loader: str, number: int, shuffle: bool, batch_size: int, reader: Reader) -> Epoch:
    """Read one epoch."""
    rows, resident, sampled = 0, [], 0.0
    start, cpu_start = time.perf_counter(), time.process_time()
    for batch_rows in reader():
        rows += batch_rows
        if (now := time.perf_counter()) - sampled > 0.1:
            sampled = now
            resident.append(resident_mb())
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    every = -(-len(resident) // SAMPLES)
    return Epoch(loader, number, shuffle, batch_size, rows, seconds, cpu_seconds, resident[::every])


def scan(folder: Path, schema: Schema) -> Iterator[int]:
    """Decode the columns of the stream, a row group at a time, in one thread."""
    names = column_names(schema)
    for name in schema.splits["train"].files:
        with pq.ParquetFile(folder / name) as file:
            for group in range(file.num_row_groups):
                yield len(file.read_row_group(group, columns=names, use_threads=False))


class InMemory(Dataset):
    """The first rows of a split as arrays: what a map-style data set usually is. Columns of lists are left out."""

    def __init__(self, folder: Path, schema: Schema, rows: int) -> None:
        names = [
            name for name in column_names(schema) if not any(c.name == name and c.sequence for c in schema.categorical)
        ]
        pieces, found = [], 0
        for file in schema.splits["train"].files:
            if found < rows:
                pieces.append(pq.read_table(folder / file, columns=names, use_threads=False).slice(0, rows - found))
                found += len(pieces[-1])
        self.columns = [column.to_numpy() for column in pa.concat_tables(pieces).columns]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, row: int) -> tuple[Any, ...]:
        return tuple(column[row] for column in self.columns)


def summarize(epochs: list[Epoch]) -> list[dict[str, Any]]:
    """Return a record per contestant and case: medians over rounds, and the ratio to the scan by CPU time a row."""
    bare = {epoch.round: epoch.cpu_seconds / epoch.rows for epoch in epochs if epoch.loader == SCAN}
    cases: dict[tuple[str, bool, int], list[Epoch]] = {}
    for epoch in epochs:
        cases.setdefault((epoch.loader, epoch.shuffle, epoch.batch_size), []).append(epoch)
    return [
        {
            "loader": loader,
            "shuffle": shuffle,
            "batch_size": batch_size,
            "rows": same[0].rows,
            "rows_per_second": statistics.median(epoch.rows / epoch.seconds for epoch in same),
            "rows_per_cpu_second": statistics.median(epoch.rows / epoch.cpu_seconds for epoch in same),
            "ratio_to_scan": statistics.median(bare[epoch.round] / (epoch.cpu_seconds / epoch.rows) for epoch in same),
            "resident_mb": statistics.median(epoch.resident_mb[0] for epoch in same),
            "growth_mb": max(max(epoch.resident_mb) - epoch.resident_mb[0] for epoch in same),
        }
        for (loader, shuffle, batch_size), same in cases.items()
    ]


def table(cases: list[dict[str, Any]]) -> Table:
    found = Table(title="Reading an epoch with one thread", caption="resident: at first + largest growth in an epoch")
    for heading in ("order", "batch", "loader", "rows", "million rows/s", "per CPU s", "of the scan", "resident MB"):
        found.add_column(heading, justify="left" if heading in ("order", "loader") else "right")
    for case in cases:
        batches = case["loader"] != SCAN
        found.add_row(
            ("shuffled" if case["shuffle"] else "file") if batches else "",
            f"{case['batch_size']:,}" if batches else "",
            case["loader"],
            f"{case['rows']:,}",
            f"{case['rows_per_second'] / 1e6:.3f}",
            f"{case['rows_per_cpu_second'] / 1e6:.3f}",
            f"{case['ratio_to_scan']:.3f}",
            f"{case['resident_mb']:.0f} + {case['growth_mb']:.0f}",
        )
    return found


def write_data(folder: Path, rows: int) -> None:
    """Write a prepared folder: users and items by popularity, and labels."""
    form = pa.schema([("user_id", pa.int64()), ("item_id", pa.int64()), ("label", pa.float32())])
    random = np.random.default_rng(0)

    def batches(count: int) -> Iterator[pa.RecordBatch]:
        for start in range(0, count, CHUNK):
            size = min(CHUNK, count - start)
            users, items = ((IDS * random.random(size) ** power).astype(np.int64) for power in (2, 4))
            yield pa.record_batch([users, items, (random.random(size) < 0.3).astype(np.float32)], schema=form)

    cuts = [rows * number // FILES for number in range(FILES + 1)]
    names = [f"train/part-{number:05d}.parquet" for number in range(FILES)]
    (folder / "train").mkdir(parents=True)
    for name, start, stop in zip(names, cuts[:-1], cuts[1:], strict=True):
        write_parquet(pa.RecordBatchReader.from_batches(form, batches(stop - start)), folder / name)
    columns = (Categorical("user_id", IDS, IDS, "user"), Categorical("item_id", IDS, IDS, "item"))
    splits = {"train": Split(rows, tuple(names))}
    Schema("benchmark", "label", columns, (), splits, digests=digest_folder(folder)).save(folder)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="a prepared folder; default: write one")
    parser.add_argument("--rows", type=int, default=20_000_000, help="rows of the data that are written")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[4_096, 65_536])
    parser.add_argument("--rounds", type=int, default=1, help="how often every contestant reads every case")
    parser.add_argument("--workers", type=int, default=0, help="threads of the stream that read ahead")
    parser.add_argument("--shuffle-buffer", type=int, default=SHUFFLE_BUFFER, help="rows, of the stream")
    parser.add_argument("--map-rows", type=int, default=200_000, help="rows of the map-style data set; 0: leave it out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write all measurements")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
