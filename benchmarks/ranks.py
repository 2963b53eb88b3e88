"""Training throughput of two ranks of one thread next to one rank of one thread, and what their communication costs.

    cove prepare data=toys && cove prepare data=movielens_100k && cove prepare data=aotm
    python benchmarks/ranks.py --json FILE

A batch is divided among the ranks, so both do the same work per epoch. Whole training epochs by `Trainer`, streamed
from Parquet, without evaluation. In each round, in turns:

- one: a rank, the whole batch
- two: two ranks under torchrun, half the batch each, gradients and rows all-reduced by gloo
- apart: two programs at once that know nothing of each other, half the batch each; their samples per second are added

Ratios are made round by round: ``speed-up`` is two / one. ``apart`` / one is what the cores and their shared caches
allow without any communication; 1 - two / apart is the share of time that communication and waiting cost.

The machine must be idle, with two cores.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctr_throughput import run_ours
from measured import write_measurements
from rich.console import Console
from rich.table import Table

RANKS = 2
_TOYS = ("data=toys", "trainer=cf", "trainer.batch_size=8192")


@dataclass(frozen=True)
class Contest:
    """A configuration, the data set it trains on, and the speed-up that is aimed at."""

    data: str
    batch_size: int
    overrides: tuple[str, ...]
    goal: float | None = None


CONTESTS = {
    "deepfm": Contest("movielens_100k", 5000, ("experiment=movielens_deepfm",), 1.8),
    "cove_deepfm": Contest("movielens_100k", 5000, ("experiment=movielens_cove_deepfm",), 1.8),
    "dcn": Contest("movielens_100k", 5000, ("experiment=movielens_dcn",), 1.8),
    "bprmf, sparse_rmsprop": Contest(
        "toys", 8192, (*_TOYS, "model=bprmf", "embeddings.optimizer.name=sparse_rmsprop"), 1.5
    ),
    "bprmf, adam": Contest("toys", 8192, (*_TOYS, "model=bprmf", "embeddings.optimizer.name=adam"), 1.5),
    "neumf": Contest("toys", 8192, (*_TOYS, "model=neumf", "embeddings.optimizer.name=sparse_rmsprop")),
    "lightgcn": Contest("toys", 8192, (*_TOYS, "model=lightgcn")),
    "sasrec": Contest("aotm", 256, ("experiment=aotm_sasrec",)),
}

Speeds = dict[str, float]  # samples per second by contestant


def measure_round(contest: Contest, folder: Path, epochs: int) -> Speeds:
    """Measure each contestant once."""

    def run(ranks: int, batch_size: int) -> float:
        overrides = (*contest.overrides, f"trainer.batch_size={batch_size}")
        return run_ours(folder, epochs, ranks, *overrides, threads=1)["samples_per_s"]

    with ThreadPoolExecutor(RANKS) as programs:
        apart = sum(programs.map(run, [1] * RANKS, [contest.batch_size // RANKS] * RANKS))
    return {"one": run(1, contest.batch_size), "two": run(RANKS, contest.batch_size), "apart": apart}


def summarize(rounds: list[Speeds]) -> dict[str, float]:
    """Return medians over rounds of the speeds and ratios, with the lowest and highest speed-up."""
    speed_ups = [entry["two"] / entry["one"] for entry in rounds]
    return {
        **{name: statistics.median(entry[name] for entry in rounds) for name in rounds[0]},
        "speed_up": statistics.median(speed_ups),
        "lowest": min(speed_ups),
        "highest": max(speed_ups),
        "apart_ratio": statistics.median(entry["apart"] / entry["one"] for entry in rounds),
        "communication": statistics.median(1 - entry["two"] / entry["apart"] for entry in rounds),
    }


def show(results: dict[str, Any]) -> None:
    table = Table("model", "batch", "one: samples/s", "two", "speed-up", "lowest to highest", "goal", "apart", "cost")
    for name, result in results.items():
        found, contest = result["summary"], CONTESTS[name]
        table.add_row(
            name,
            f"{contest.batch_size:,}",
            f"{found['one']:,.0f}",
            f"{found['two']:,.0f}",
            f"{found['speed_up']:.2f}",
            f"{found['lowest']:.2f} to {found['highest']:.2f}",
            "" if contest.goal is None else f"{contest.goal}",
            f"{found['apart_ratio']:.2f}",
            f"{found['communication']:.0%}",
        )
    Console(width=130).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the prepared data sets")
    parser.add_argument("--models", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2, help="timed in each program, after one of warm-up")
    parser.add_argument("--json", type=Path, metavar="FILE", help="each round's speeds; written after each model")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name in arguments.models:
        contest = CONTESTS[name]
        folder = arguments.data / contest.data
        rounds = [measure_round(contest, folder, arguments.epochs) for _ in range(arguments.rounds)]
        results[name] = {"batch_size": contest.batch_size, "summary": summarize(rounds), "rounds": rounds}
        if arguments.json:
            write_measurements(arguments.json, {"results": results})
    show(results)


if __name__ == "__main__":
    main()
