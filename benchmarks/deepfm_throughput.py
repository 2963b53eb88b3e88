"""Training throughput of DeepFM at the paper's setting: this project against FuxiCTR, in turns on one machine.

    python3 -m venv fuxictr && fuxictr/bin/pip install torch==2.13.0 && \
        fuxictr/bin/pip install -r benchmarks/requirements-fuxictr.txt
    python benchmarks/deepfm_throughput.py --data data/movielens_100k --fuxictr fuxictr/bin/python --json FILE

Each round times whole training epochs of one process with 2 threads: ours by `Trainer`, data streamed from Parquet;
FuxiCTR's by its own fit loop, from its in-memory loader. Without evaluation in both. The ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = 2


def measure_ours(data: Path, epochs: int, *overrides: str) -> float:
    """Samples per second: the median over epochs, after one of warm-up."""
    import torch

    from cove_dist.composition import load_run_config
    from cove_dist.training.distributed import process_group
    from cove_dist.training.trainer import Trainer
    from data_pipeline.schema import Schema
    from launch.cli import quiet_libraries

    quiet_libraries()
    torch.set_num_threads(THREADS)
    config, _ = load_run_config(
        [
            "experiment=movielens_deepfm",
            f"data.path={data}",
            "trainer.device=cpu",
            "trainer.log_every=1000000",
            *overrides,
        ]
    )
    schema = Schema.load(data)
    with process_group("cpu") as runtime:
        trainer = Trainer(config, schema, runtime)
        trainer.trainable.model.train()
        seconds = []
        for epoch in range(epochs + 1):
            trainer.train_loader.set_epoch(epoch)
            start = time.perf_counter()
            for predictions in trainer.steps(iter(trainer.train_loader)):
                trainer.window.add(predictions)
            seconds.append(time.perf_counter() - start)
    return schema.splits["train"].rows / statistics.median(seconds[1:])


def run_ours(data: Path, epochs: int, *overrides: str) -> float:
    """`measure_ours` in a process of its own."""
    command = [sys.executable, __file__, "--data", str(data), "--epochs", str(epochs), "--ours-only", *overrides]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.strip().splitlines()[-1])


def run_fuxictr(python: Path, data: Path, epochs: int) -> float:
    script = Path(__file__).with_name("fuxictr_deepfm.py")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speed.json"
        arguments = ["--data", str(data), "--json", str(file), "--speed-only", "--steps", str(15 * epochs)]
        subprocess.run([str(python), str(script), *arguments], check=True, capture_output=True)
        return json.loads(file.read_text())["speed"]["0"]["epoch_samples_per_s"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared MovieLens-100K")
    parser.add_argument("--fuxictr", type=Path, help="the python of FuxiCTR's environment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3, help="timed in each round, after one of warm-up")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--ours-only", nargs="*", metavar="OVERRIDE", help="print our figure alone")
    arguments = parser.parse_args()
    if arguments.ours_only is not None:
        print(measure_ours(arguments.data, arguments.epochs, *arguments.ours_only))
        return
    if arguments.fuxictr is None:
        parser.error("--fuxictr is needed, but with --ours-only")
    rounds = []
    for number in range(arguments.rounds):
        figures = {
            "DeepFM": run_ours(arguments.data, arguments.epochs),
            "COVE-DeepFM": run_ours(arguments.data, arguments.epochs, "quantizer=cove"),
            "FuxiCTR DeepFM": run_fuxictr(arguments.fuxictr, arguments.data, arguments.epochs),
        }
        rounds.append(figures)
        print(
            f"round {number + 1}: " + ", ".join(f"{name} {value:,.0f}" for name, value in figures.items()), flush=True
        )
    show(rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(rounds, indent=2) + "\n")


def show(rounds: list[dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "samples/s (median)", "ratio to FuxiCTR (median of rounds)", "lowest", "highest")
    for name in rounds[0]:
        ratios = sorted(figures[name] / figures["FuxiCTR DeepFM"] for figures in rounds)
        speed = statistics.median(figures[name] for figures in rounds)
        cells = (f"{value:.2f}" for value in (statistics.median(ratios), ratios[0], ratios[-1]))
        table.add_row(name, f"{speed:,.0f}", *cells)
    Console().print(table)


if __name__ == "__main__":
    main()
