"""CPU time of a training step by source of negatives, and with COVE, next to that of uniform negatives without it.

    cove prepare data=toys && cove prepare data=toys sequences=20 output=data/toys_next
    OMP_NUM_THREADS=1 python benchmarks/negatives.py --json FILE

Sources take turns. A figure is the median over rounds of a source's CPU time divided by the base's in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from measured import write_measurements
from rich.console import Console
from rich.table import Table

from cove_dist.console import quiet_libraries
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema

CATEGORIES = ("negatives.category_share=0.4", "negatives.category_count=4")
SOURCES: dict[str, dict[str, tuple[str, ...]]] = {  # by model; the first is the base
    "bprmf": {
        "uniform": (),
        "popularity": ("negatives.source=popularity",),
        "in-batch": ("negatives.source=in_batch",),
        "categories by k-means": CATEGORIES,
        "categories by k-means, in-batch": ("negatives.source=in_batch", *CATEGORIES),
        "categories by COVE's codes": (
            "quantizer=negatives",
            "quantizer.item_levels=[4]",
            "negatives.category_share=0.4",
            "negatives.category_codes=quantizer",
        ),
        "DNS, 4 candidates, 0.3 of the rows": ("negatives.hardest_of=4", "negatives.hardest_share=0.3"),
        "DNS, 4 candidates, all rows": ("negatives.hardest_of=4", "negatives.hardest_share=1.0"),
        "COVE": ("quantizer=cove",),
    },
    "neumf": {"uniform": (), "COVE": ("quantizer=cove",)},
    "lightgcn": {"uniform": (), "COVE": ("quantizer=cove",)},
    "sasrec": {"sample": (), "categories by k-means": CATEGORIES},
}
INTERACTIONS = ("bprmf", "neumf", "lightgcn")
BATCH_SIZE = 4096


def settings(model: str) -> tuple[str, ...]:
    if model in INTERACTIONS:
        return "data=toys", f"model={model}", f"trainer.batch_size={BATCH_SIZE}"
    return "data=toys", f"model={model}", "sequential.softmax=sampled", "sequential.sampled=1024"


class Contestant:
    """A run whose categories are known, in its second epoch.

    Args:
        overrides: Overrides of the run.
        context: Context of the only rank.
    """

    def __init__(self, overrides: list[str], context: DistributedContext) -> None:
        config, _ = load_run_config([*overrides, "trainer.device=cpu"])
        self._trainer = Trainer(config, Schema.load(config.data.path), context)
        self._trainer.train_state.model.train()
        hook = self._trainer.train_state.epoch_hook
        if hook is not None:
            hook.start_epoch(1)
        self._trainer.train_loader.set_epoch(1)
        self._steps = (step for _ in cycle([0]) for step in self._trainer.steps(iter(self._trainer.train_loader)))

    def seconds(self, steps: int) -> float:
        """Return the CPU time of a step, over so many of them."""
        start = time.process_time()
        for _ in islice(self._steps, steps):
            pass
        return (time.process_time() - start) / steps


def compare(model: str, folder: Path, rounds: int, steps: int, further: list[str]) -> dict[str, dict[str, float]]:
    """Return the milliseconds of a step and its ratio to the base's, by source: the medians over the rounds."""
    base = [*settings(model), f"data.path={folder}", *further]
    with process_group("cpu") as context:
        runs = {name: Contestant([*base, *source], context) for name, source in SOURCES[model].items()}
        for run in runs.values():
            run.seconds(steps)
        measured = [{name: run.seconds(steps) for name, run in runs.items()} for _ in range(rounds)]
    return {name: _summary(name, measured) for name in runs}


def _summary(name: str, measured: list[dict[str, float]]) -> dict[str, float]:
    base = next(iter(measured[0]))
    ratios = [each[name] / each[base] for each in measured]
    ms = 1000 * statistics.median(each[name] for each in measured)
    return {"ms": ms, "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    folders: Any = {"type": Path, "metavar": "FOLDER"}
    interactions = f"prepared interactions, for {', '.join(INTERACTIONS)} (default: data/toys)"
    parser.add_argument("--interactions", **folders, default=Path("data/toys"), help=interactions)
    sequences = "prepared sequences, for sasrec (default: data/toys_next)"
    parser.add_argument("--sequences", **folders, default=Path("data/toys_next"), help=sequences)
    parser.add_argument("--models", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="of a source in a round")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("overrides", nargs="*", help="of every run")
    given = parser.parse_args(arguments)
    quiet_libraries()
    results: dict[str, dict[str, dict[str, float]]] = {}
    table = Table("model", "negatives", "ms", "ratio", "lowest to highest")
    for model in given.models:
        folder = given.interactions if model in INTERACTIONS else given.sequences
        results[model] = compare(model, folder, given.rounds, given.steps, given.overrides)
        for name, found in results[model].items():
            span = f"{found['lowest']:.2f} to {found['highest']:.2f}"
            table.add_row(model, name, f"{found['ms']:.1f}", f"{found['ratio']:.2f}", span)
        if given.json:
            write_measurements(given.json, {"clock": "cpu", "results": results})
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
