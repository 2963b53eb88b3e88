"""One epoch of FuxiCTR's Parquet loader, for `benchmarks/stream.py`, which runs it in a Python with FuxiCTR.

The last line of its output has rows, seconds, CPU seconds and resident memory of this process and all of Ray's.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import psutil
import ray
import torch
from fuxictr.pytorch.dataloaders.parquet_dataloader import ParquetDataLoader
from fuxictr_data import build_feature_map

SAMPLES = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a prepared folder")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--shuffle", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    schema = json.loads((arguments.folder / "schema.json").read_text())
    fields = {column["name"]: column["num_seen"] for column in schema["categorical"] if not column["sequence"]}
    features = build_feature_map(schema["name"], arguments.folder, fields, schema["label"])
    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    path = str(arguments.folder / "train")
    loader = ParquetDataLoader(features, path, "train", arguments.batch_size, arguments.shuffle, num_workers=1)
    rows, resident = 0, [memory()]
    start, cpu_start = time.perf_counter(), cpu_seconds()
    every = max(1, len(loader) // SAMPLES)
    for step, batch in enumerate(loader):
        rows += len(batch[schema["label"]])
        if step % every == 0:
            resident.append(memory())
    found = {"rows": rows, "seconds": time.perf_counter() - start, "cpu_seconds": cpu_seconds() - cpu_start}
    print(json.dumps(found | {"resident_mb": resident}))


def processes() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]


def cpu_seconds() -> float:
    """Return the CPU time of this process and Ray's so far."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes()))


def memory() -> float:
    """Return the memory of this process and Ray's in MB, in which shared memory counts once for each process."""
    return sum(process.memory_info().rss for process in processes()) / 1e6


if __name__ == "__main__":
    main()
