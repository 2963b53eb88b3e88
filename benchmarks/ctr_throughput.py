"""Training throughput of the CTR heads at the paper's setting: this project and FuxiCTR, in turns on one machine.

    python3 -m venv fuxictr && fuxictr/bin/pip install torch==2.13.0 && \\
        fuxictr/bin/pip install -r benchmarks/requirements-fuxictr.txt
    python benchmarks/ctr_throughput.py --data data/movielens_100k --fuxictr fuxictr/bin/python --json FILE

Each round times whole training epochs, without evaluation: ours with and without COVE as one process with two threads
and as two ranks with one thread, by `Trainer`, data streamed from Parquet; FuxiCTR's as one process with two threads,
by its own fit loop, from its in-memory loader. The ratio is taken round by round.

The share of the step that is dense matmul: the FLOP of its matrix products, over the machine's single-precision peak
(the fastest of the round's products of two 4096 x 4096 matrices, two threads), over the time of the step.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from measured import write_measurements
from rich.console import Console
from rich.table import Table

CORES = 2
HEADS = ("deepfm", "dcn", "fibinet", "finalmlp")
FUXICTR = "FuxiCTR"
PEAK_SIZE = 4096

Measured = dict[str, float]  # samples_per_s and, of ours, gflop_per_row


def run_ours(data: Path, epochs: int, ranks: int, *overrides: str, threads: int | None = None) -> Measured:
    """Train one configuration on ``ranks`` processes of as many threads each; None: they share the cores."""
    threads = threads or CORES // ranks
    launcher = [sys.executable] if ranks == 1 else [sys.executable, "-m", "torch.distributed.run"]
    launcher += [] if ranks == 1 else ["--standalone", f"--nproc_per_node={ranks}"]
    worker = Path(__file__).with_name("throughput_worker.py")
    arguments = ["--data", str(data), "--epochs", str(epochs), "--threads", str(threads), *overrides]
    return json.loads(last_line([*launcher, str(worker), *arguments], threads))


def run_fuxictr(python: Path, data: Path, epochs: int, head: str) -> Measured:
    script = Path(__file__).with_name("fuxictr_ctr.py")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speed.json"
        arguments = ["--model", head, "--data", str(data), "--json", str(file), "--speed-epochs", str(epochs)]
        last_line([str(python), str(script), *arguments], CORES)
        return {"samples_per_s": json.loads(file.read_text())["speed"]["0"]["epoch_samples_per_s"]}


def peak_gflops() -> float:
    """Measure the fastest of ten large products with `CORES` threads."""
    torch.set_num_threads(CORES)
    left, right = torch.rand(2, PEAK_SIZE, PEAK_SIZE)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2e-9 * PEAK_SIZE**3 / min(seconds)


def last_line(command: list[str], threads: int) -> str:
    """Run to the end; what the program printed last. Its errors are shown if it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return done.stdout.strip().splitlines()[-1]


def measure_round(data: Path, python: Path, head: str, epochs: int) -> dict[str, Measured]:
    """Measure every contestant once."""
    figures = {}
    for ranks in (1, 2):
        where = "1 process" if ranks == 1 else f"{ranks} ranks"
        figures[f"base, {where}"] = run_ours(data, epochs, ranks, f"experiment=movielens_{head}")
        figures[f"COVE, {where}"] = run_ours(data, epochs, ranks, f"experiment=movielens_cove_{head}")
    figures[FUXICTR] = run_fuxictr(python, data, epochs, head)
    return figures


def summarize(rounds: list[dict]) -> list[dict]:
    """Return a record per head and contestant: medians over rounds, and the lowest and highest ratio."""
    records = []
    for head in dict.fromkeys(entry["head"] for entry in rounds):
        entries = [entry for entry in rounds if entry["head"] == head]
        for name in entries[0]["figures"]:
            speeds = [entry["figures"][name]["samples_per_s"] for entry in entries]
            ratios = sorted(s / e["figures"][FUXICTR]["samples_per_s"] for s, e in zip(speeds, entries, strict=True))
            record = {"head": head, "contestant": name, "samples_per_s": statistics.median(speeds)}
            record |= {"ratio": statistics.median(ratios), "lowest": ratios[0], "highest": ratios[-1]}
            if name != FUXICTR:
                gflop = entries[0]["figures"][name]["gflop_per_row"]
                shares = (gflop * s / e["peak_gflops"] for s, e in zip(speeds, entries, strict=True))
                record |= {"gflop_per_row": gflop, "matmul_share": statistics.median(shares)}
            records.append(record)
    return records


def show(records: list[dict]) -> None:
    caption = "ratio: to FuxiCTR, median of rounds. matmul: share of the step at the machine's peak rate"
    table = Table("head", "", "samples/s", "ratio", "lowest", "highest", "matmul", caption=caption)
    head = None
    for record in records:
        if head not in (None, record["head"]):
            table.add_section()
        head = record["head"]
        ratios = (f"{record[key]:.2f}" for key in ("ratio", "lowest", "highest"))
        share = f"{record['matmul_share']:.0%}" if "matmul_share" in record else ""
        table.add_row(head, record["contestant"], f"{record['samples_per_s']:,.0f}", *ratios, share)
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared MovieLens-100K")
    parser.add_argument("--fuxictr", type=Path, required=True, help="the python of FuxiCTR's environment")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=HEADS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="timed in each round, after one of warm-up")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round's measurements; written after each")
    arguments = parser.parse_args()
    rounds = []
    for number in range(arguments.rounds):
        for head in arguments.heads:
            start, peak = time.perf_counter(), peak_gflops()
            figures = measure_round(arguments.data, arguments.fuxictr, head, arguments.epochs)
            rounds.append({"head": head, "peak_gflops": peak, "figures": figures})
            speeds = ", ".join(f"{name} {figure['samples_per_s']:,.0f}" for name, figure in figures.items())
            took = time.perf_counter() - start
            print(f"round {number + 1}, {head}: {speeds} ({peak:.0f} GFLOP/s; {took:.0f} s)", flush=True)
            if arguments.json:
                results = {"rounds": rounds, "summary": summarize(rounds)}
                write_measurements(arguments.json, results)
    show(summarize(rounds))


if __name__ == "__main__":
    main()
