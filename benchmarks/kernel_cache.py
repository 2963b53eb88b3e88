"""Resident memory of convolutions of ever new shapes, by how many kernels oneDNN keeps.

    python benchmarks/kernel_cache.py --json FILE

On CPU, oneDNN compiles a kernel for every shape: of convolutions (Caser), and, where the processor has instructions for
bfloat16, of every linear layer under `trainer.precision=bfloat16`. Batches of sequences have ever new shapes. A process
for each capacity runs forward and backward passes of one convolution over 200, 201, … rows.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from measured import write_measurements
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from cove_dist.training.memory import resident_mb

CAPACITY = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"


def grow(shapes: int, every: int) -> list[tuple[int, float]]:
    """Return the resident MB after every so many shapes."""
    filters = torch.randn(16, 1, 3, 64, requires_grad=True)
    found = []
    for number in range(shapes + 1):
        rows = torch.randn(200 + number, 1, 12, 64, requires_grad=True)
        functional.conv2d(rows, filters).sum().backward()
        if number % every == 0:
            found.append((number, resident_mb()))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capacities", nargs="+", type=int, default=[1024, 128])
    parser.add_argument("--shapes", type=int, default=500)
    parser.add_argument("--every", type=int, default=100)
    parser.add_argument("--worker", action="store_true", help="measure in this process, and print JSON")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.worker:
        torch.set_num_threads(1)
        megabytes = grow(arguments.shapes, arguments.every)
        print(json.dumps({"resident_mb": megabytes, "cpu_s": time.process_time()}))
        return
    results = {}
    for capacity in arguments.capacities:
        numbers = [f"--shapes={arguments.shapes}", f"--every={arguments.every}"]
        environment = os.environ | {CAPACITY: str(capacity)}
        command = [sys.executable, __file__, "--worker", *numbers]
        results[capacity] = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    rows = next(iter(results.values()))["resident_mb"]
    table = Table("kernels kept", *(f"MB after {number} shapes" for number, _ in rows), "CPU s")
    for capacity, found in results.items():
        megabytes = (f"{value:,.0f}" for _, value in found["resident_mb"])
        table.add_row(f"{capacity:,}", *megabytes, f"{found['cpu_s']:.1f}")
    Console(width=120).print(table)
    if arguments.json:
        write_measurements(arguments.json, {"results": results})


if __name__ == "__main__":
    main()
