"""CPU time of a training step by source of negatives, next to that of uniform negatives in the same process.

    python benchmarks/negatives.py --interactions data/toys --sequences data/toys_next

Sources take turns. A figure is the median over rounds of a source's CPU time divided by the base's in the same round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import cycle, islice
from pathlib import Path

from cove_dist.distributed import DistributedContext, process_group
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema

CATEGORIES = ("negatives.category_share=0.2",)
SOURCES = {
    "bprmf": {
        "uniform": (),
        "popularity": ("negatives.source=popularity",),
        "in_batch": ("negatives.source=in_batch",),
        "categories": CATEGORIES,
        "categories_in_batch": ("negatives.source=in_batch", *CATEGORIES),
        "dns": ("negatives.hardest_of=4", "negatives.hardest_share=0.3"),
    },
    "sasrec": {"sample": (), "categories": CATEGORIES},
}
SETTINGS = {
    "bprmf": ("data=toys", "model=bprmf", "trainer.batch_size=4096"),
    "sasrec": ("data=toys", "model=sasrec", "sequential.softmax=sampled", "sequential.sampled=1024"),
}


class Contestant:
    """A run whose categories are known, in its second epoch.

    Args:
        overrides: Overrides of the run.
        context: Context of the only rank.
    """

    def __init__(self, overrides: list[str], context: DistributedContext) -> None:
        config, _ = load_run_config([*overrides, "trainer.device=cpu"])
        self._trainer = Trainer(config, Schema.load(config.data.path), context)
        self._trainer.trainable.model.train()
        hook = self._trainer.trainable.epoch_hook
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
    base = [*SETTINGS[model], f"data.path={folder}", *further]
    with process_group("cpu") as context:
        runs = {name: Contestant([*base, *source], context) for name, source in SOURCES[model].items()}
        for run in runs.values():
            run.seconds(steps)
        measured = [{name: run.seconds(steps) for name, run in runs.items()} for _ in range(rounds)]
    first = next(iter(runs))
    return {
        name: {
            "ms": round(1000 * statistics.median(each[name] for each in measured), 2),
            "ratio": round(statistics.median(each[name] / each[first] for each in measured), 3),
        }
        for name in runs
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print one JSON object a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--interactions", type=Path, help="prepared interactions, for bprmf")
    parser.add_argument("--sequences", type=Path, help="prepared sequences, for sasrec")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="of a source in a round")
    parser.add_argument("overrides", nargs="*", help="of every run")
    given = parser.parse_args(arguments)
    for model, folder in (("bprmf", given.interactions), ("sasrec", given.sequences)):
        if folder is not None:
            print(json.dumps({model: compare(model, folder, given.rounds, given.steps, given.overrides)}), flush=True)


if __name__ == "__main__":
    main()
