"""What COVE adds to a training step of DeepFM at the paper's setting, in parts.

    python benchmarks/training_step.py --data data/movielens_100k --json FILE

Trains DeepFM and COVE-DeepFM, with the settings of ``configs/experiment/``, on gloo ranks of one thread each, in turns:
a round has a block of steps of each, in one order and the next time in the other. Batches are in memory. A step is what
the trainer does for one: look-ups, forward, backward with its all-reduces, optimizers, upkeep of the codebooks. Times
are rank 0's: the median over the steps of a block, then over rounds; ratios are round by round.

Parts of COVE, measured within the same steps: the search for the nearest codes; the rest of the quantizers' forward
pass; their backward pass; the upkeep after the step, which for moving averages begins with an all-reduce. "all-reduce"
is timed separately, on a flat buffer of the size that the codebooks add, while nothing else runs; gradients are
all-reduced during the backward pass, so there it is the most that it can cost. "rest" is what remains of the difference
to DeepFM.

"overlapped" starts the all-reduce of the moving averages' statistics right after the forward pass, and waits for it
after the step, where the trainer starts it then.

The machine must be idle, with a core for each rank.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from measured import write_measurements
from rich.console import Console
from rich.table import Table
from torch.distributed.launcher.api import LaunchConfig, elastic_launch
from training_step_contestants import Contestant, Stopwatch

from cove_dist.console import quiet_libraries
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.loaders import training_loader
from data_pipeline.errors import UserError
from data_pipeline.schema import Schema

BASE, GOAL = "DeepFM", 1.10
EMA, OVERLAPPED = "quantizer.learning=ema", "COVE, ema, overlapped"
CONTESTANTS: dict[str, tuple[str, ...]] = {
    BASE: ("experiment=movielens_deepfm",),
    "COVE, gradient": ("experiment=movielens_cove_deepfm",),
    "COVE, ema": ("experiment=movielens_cove_deepfm", EMA),
    OVERLAPPED: ("experiment=movielens_cove_deepfm", EMA),
}
AVERAGED = ("COVE, ema", OVERLAPPED)
PARTS = ("search", "other forward", "backward", "upkeep")
WIDTH = 120


@dataclass(frozen=True)
class Settings:
    data: str
    overrides: tuple[str, ...] = ()
    ranks: int = 2
    rounds: int = 10
    steps: int = 10  # of a block
    warm_up: int = 3

    def overrides_of(self, contestant: str) -> list[str]:
        """Those of the quantizer are not for the model without one."""
        return [o for o in self.overrides if contestant != BASE or not o.startswith("quantizer")]


def measure(settings: Settings) -> dict[str, Any]:
    """Measure on every rank: by contestant, the medians of every round, and the all-reduce of its codebooks."""
    quiet_libraries()
    torch.set_num_threads(1)
    with process_group("cpu") as context:
        contestants = build_contestants(settings, context)
        for contestant in contestants.values():
            for _ in range(settings.warm_up):
                contestant.step()
        rounds = [run_round(contestants, settings.steps, number % 2 == 1) for number in range(settings.rounds)]
        reduced = {name: time_all_reduce(one.all_reduced_bytes()) for name, one in contestants.items()}
        return {
            name: {"rounds": [r[name] for r in rounds], "bytes": one.all_reduced_bytes(), "all_reduce": reduced[name]}
            for name, one in contestants.items()
        }


def build_contestants(settings: Settings, context: DistributedContext) -> dict[str, Contestant]:
    schema = Schema.load(settings.data)
    overrides = {
        name: [*own, f"data.path={settings.data}", "trainer.device=cpu", *settings.overrides_of(name)]
        for name, own in CONTESTANTS.items()
    }
    config, _ = load_run_config(overrides[BASE])
    batches = list(training_loader(config, schema, context))
    return {
        name: Contestant(own, batches, schema, context, overlapped=name == OVERLAPPED)
        for name, own in overrides.items()
    }


def run_round(contestants: Mapping[str, Contestant], steps: int, backwards: bool) -> dict[str, dict[str, float]]:
    """Run a block of steps of each contestant; return medians in milliseconds."""
    blocks = {}
    for name in reversed(contestants) if backwards else contestants:
        dist.barrier()
        times = [contestants[name].step() for _ in range(steps)]
        blocks[name] = {part: statistics.median(step.get(part, 0.0) for step in times) for part in ("step", *PARTS)}
    return blocks


def time_all_reduce(size: int, repetitions: int = 50) -> float:
    """Milliseconds for a flat buffer of ``size`` bytes, median."""
    if size == 0:
        return 0.0
    flat, watch, taken = torch.zeros(size // 4), Stopwatch(), []
    for _ in range(repetitions):
        dist.barrier()
        with watch.timed("all-reduce"):
            dist.all_reduce(flat)
        taken.append(watch.take()["all-reduce"])
    return statistics.median(taken)


def refuse_bad_input(settings: Settings) -> None:
    """End with one message, before there are ranks that could end with many."""
    try:
        Schema.load(settings.data)
        for name, own in CONTESTANTS.items():
            load_run_config([*own, *settings.overrides_of(name)])[0].trainer.rank_batch_size(settings.ranks)
    except UserError as error:
        raise SystemExit(f"error: {error}") from error


def on_ranks(settings: Settings) -> dict[str, Any]:
    """Call `measure` in new processes, as torchrun starts them; return the result of rank 0."""
    launch = LaunchConfig(
        run_id="training_step",
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=settings.ranks,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        start_method="spawn",
    )
    return elastic_launch(launch, measure)(settings)[0]


def summarize(measured: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Medians over rounds by contestant; ``rest`` is what the parts leave of the difference to DeepFM."""
    base = [block["step"] for block in measured[BASE]["rounds"]]
    summary = {}
    for name, figures in measured.items():
        rounds = figures["rounds"]
        ratios = [block["step"] / own for block, own in zip(rounds, base, strict=True)]
        added = statistics.median(block["step"] - own for block, own in zip(rounds, base, strict=True))
        parts = {part: statistics.median(block[part] for block in rounds) for part in PARTS}
        # moving averages are all-reduced within the upkeep, gradients within the backward pass
        apart = 0.0 if name in AVERAGED else figures["all_reduce"]
        summary[name] = {
            "step": statistics.median(block["step"] for block in rounds),
            "ratio": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
            "added": added,
            **parts,
            "all-reduce": figures["all_reduce"],
            "kilobytes": figures["bytes"] / 1e3,
            "rest": added - sum(parts.values()) - apart,
        }
    return summary


def step_table(summary: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("", title="A training step", caption="medians over rounds")
    for heading in ("ms", "x DeepFM", "lowest - highest", f"goal <= {GOAL:.2f}"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in summary.items():
        goal = "" if name == BASE else "met" if figures["ratio"] <= GOAL else "missed"
        spread = f"{figures['lowest']:.3f} - {figures['highest']:.3f}"
        table.add_row(name, f"{figures['step']:.1f}", f"{figures['ratio']:.3f}", spread, goal)
    return table


def part_table(summary: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("", title="What COVE adds to a step, in ms", caption="medians over rounds; see --help")
    headings = ("added", *PARTS, "all-reduce", "kilobytes", "rest")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, figures in summary.items():
        if name != BASE:
            table.add_row(name, *(f"{figures[heading]:.2f}" for heading in headings))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="data/movielens_100k", help="a prepared folder")
    parser.add_argument("--ranks", type=int, default=Settings.ranks)
    parser.add_argument("--rounds", type=int, default=Settings.rounds)
    parser.add_argument("--steps", type=int, default=Settings.steps, help="of each model in a round")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the measurements, with those of every round"
    )
    parser.add_argument("overrides", nargs="*", help="further settings of all models, key=value; after --")
    given = parser.parse_args()
    settings = Settings(given.data, tuple(given.overrides), given.ranks, given.rounds, given.steps)
    refuse_bad_input(settings)
    measured = on_ranks(settings)
    summary = summarize(measured)
    console = Console(width=max(WIDTH, Console().width))
    console.print(step_table(summary))
    console.print(part_table(summary))
    if given.json:
        record = {"settings": asdict(settings), "figures": summary, "measured": measured}
        write_measurements(given.json, record)


if __name__ == "__main__":
    main()
