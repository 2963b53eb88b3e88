"""A training step of the product next to a hand-written loop of plain torch with the same model, start and batches.

    cove prepare data=toys && cove prepare data=movielens_100k && cove prepare data=aotm
    python benchmarks/bare.py --json FILE
    python benchmarks/bare.py --models bprmf --batch-sizes 1024 4096 --threads 1

The product streams its batches from Parquet, trains by the trainer's own steps, counts, logs and may save; the loop has
its batches in memory and does nothing else. Both train on the same batches from the same start: their losses are
compared at every step (`loss_difference` is the largest relative difference). Blocks of steps alternate, the order
changes from round to round, and ratios are made round by round. With few rounds or a busy machine the medians vary;
`--clock cpu` counts CPU time of the training thread instead, for one thread.

Parts of a step of the product are CPU times of the training thread: `loader` waits for the batch, `look_up`,
`forward` (after the look-up), `backward`, `update`, `after_step` (counting and logging); `rest` is what remains.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from bare_loops import BareLoop, Factors, Fields, Graph, NextItems, Pairs
from measured import write_measurements
from rich.console import Console
from rich.table import Table

from cove_dist.console import quiet_libraries
from cove_dist.distributed import DistributedContext, process_group
from cove_dist.faults.signals import deferred_signals
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.loop import TrainingLoop
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import EpochIterator

RATE = 1e-3
PARTS = ("loader", "look_up", "forward", "backward", "update", "after_step")
CF, SPARSE = (
    ("data=toys", "trainer=cf"),
    (
        "embeddings.dim=64",
        "embeddings.optimizer.name=sparse_rmsprop",
    ),
)
ADAM = ("embeddings.optimizer.name=adam",)
CLOCKS = {"time": time.perf_counter, "cpu": time.thread_time}
Clock = Callable[[], float]


@dataclass(frozen=True)
class Contest:
    """A model, its data, and the loop that trains the same."""

    loop: Callable[[torch.nn.Module, float], BareLoop]
    data: str
    overrides: tuple[str, ...]
    batch_sizes: tuple[int, ...]


CONTESTS = {
    "bprmf": Contest(Factors, "toys", (*CF, *SPARSE, "model=bprmf"), (1024, 4096)),
    "neumf": Contest(Pairs, "toys", (*CF, *SPARSE, "model=neumf"), (1024, 4096)),
    "lightgcn": Contest(Graph, "toys", (*CF, *ADAM, "model=lightgcn", "model.regularization=0"), (4096,)),
    "sasrec": Contest(
        NextItems, "aotm", ("data=aotm", "trainer=sequential", *ADAM, "model=sasrec", "model.dropout=0",
                            "sequential.item_bias=false"), (256,),
    ),
    "deepfm": Contest(
        Fields, "movielens_100k", ("data=movielens_100k", *ADAM, "model=deepfm", "model.dropout=0"), (1024, 4096),
    ),
}  # fmt: skip


@dataclass
class Product:
    """The product under training: blocks of steps by the trainer itself."""

    trainer: Trainer
    clock: Clock
    losses: list[torch.Tensor] = field(default_factory=list)

    @contextmanager
    def started(self) -> Iterator[None]:
        self.loop = TrainingLoop(self.trainer, None)
        self.trainer.train_state.model.train()
        with closing(self.loop.reporter), deferred_signals(), closing(self.restarted()):
            yield

    def restarted(self) -> EpochIterator:
        self.trainer.start_epoch()
        self.batches = iter(self.trainer.train_loader)
        self.steps = self.trainer.steps(self.batches)
        return self.batches

    def block(self, steps: int) -> float:
        """Return the seconds of some steps."""
        start = self.clock()
        for _ in range(steps):
            output = next(self.steps)
            self.loop.after_step(output, self.batches)
            self.losses.append(output.losses["loss"])
        return self.clock() - start

    def parts(self, steps: int) -> dict[str, float]:
        """Return milliseconds of CPU of the parts of a step: the median over some steps."""
        state, spent = self.trainer.train_state, defaultdict[str, list[float]](list)
        inner = state.model.module
        targets = [
            (self.batches.__class__, "__next__", "loader"),
            (inner.tables, "forward", "look_up"),
            (inner.objective, "forward", "forward"),
            (torch.Tensor, "backward", "backward"),
            (state.optimizer, "step", "update"),
            (self.loop, "after_step", "after_step"),
        ]
        with ExitStack() as stack:
            for owner, name, part in targets:
                stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name), spent[part])))
            for _ in range(steps):
                start = time.thread_time()
                self.block(1)
                spent["step"].append(time.thread_time() - start)
        found = {part: statistics.median(values) * 1e3 for part, values in spent.items() if values}
        return found | {"rest": found["step"] - sum(found.get(part, 0.0) for part in PARTS)}


def timed(function: Callable[..., Any], spent: list[float]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            spent.append(time.thread_time() - start)

    return call


def measure(
    contest: Contest, folder: Path, batch_size: int, rounds: int, clock: Clock, context: DistributedContext
) -> dict[str, Any]:
    """Return the medians of one model and batch size."""
    rates = [f"{part}.optimizer.learning_rate={RATE}" for part in ("trainer", "embeddings")]
    settings = [f"data.path={folder}", f"trainer.batch_size={batch_size}", "embeddings.init_std=0.1"]
    fixed = ["trainer.device=cpu", "trainer.warmup_steps=0", "trainer.checkpoint.every_minutes=null"]
    config, _ = load_run_config([*contest.overrides, *settings, *fixed, *rates])
    product = Product(Trainer(config, Schema.load(folder), context), clock)
    bare = contest.loop(product.trainer.train_state.model.module, RATE)
    memory = [bare.prepare(batch) for batch in product.trainer.train_loader]
    steps = max(1, min(20, (len(memory) - 2) // (rounds + 2)))
    bare_losses: list[torch.Tensor] = []

    def bare_block(count: int) -> float:
        start = clock()
        for batch in memory[len(bare_losses) : len(bare_losses) + count]:
            bare_losses.append(bare.step(batch))
        return clock() - start

    with product.started():
        contestants: list[Callable[[int], float]] = [product.block, bare_block]
        for block in contestants:
            block(2)
        taken: list[dict[Callable[[int], float], float]] = []
        for number in range(rounds):
            order = contestants if number % 2 == 0 else contestants[::-1]
            taken.append({block: block(steps) * 1e3 / steps for block in order})
        pairs = zip(product.losses, bare_losses, strict=True)
        difference = max(abs(float(a) - float(b)) / abs(float(b)) for a, b in pairs)
        parts = product.parts(steps)
    ours, theirs = ([times[block] for times in taken] for block in contestants)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "ms_a_step": statistics.median(ours),
        "bare_ms_a_step": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "lowest": min(ratios),
        "highest": max(ratios),
        "loss_difference": difference,
        "steps": steps * rounds,
        "parts": parts,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the prepared data sets")
    parser.add_argument("--models", nargs="+", choices=CONTESTS, default=list(CONTESTS))
    parser.add_argument("--batch-sizes", nargs="+", type=int, help="instead of each model's own")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--clock", choices=CLOCKS, default="time")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != [1]:
        parser.error("--clock cpu: counts one thread; needs --threads 1")
    quiet_libraries()
    results: list[dict[str, Any]] = []
    table = Table("model", "batch", "threads", "ms", "bare ms", "ratio", "lowest to highest", *PARTS, "rest")
    with process_group("cpu") as context:
        for name in arguments.models:
            contest = CONTESTS[name]
            for threads in arguments.threads:
                torch.set_num_threads(threads)
                for size in arguments.batch_sizes or contest.batch_sizes:
                    folder, clock = arguments.data / contest.data, CLOCKS[arguments.clock]
                    found = measure(contest, folder, size, arguments.rounds, clock, context)
                    results.append({"model": name, "batch_size": size, "threads": threads, **found})
                    table.add_row(*row(results[-1]))
                    if arguments.json:
                        write_measurements(arguments.json, {"clock": arguments.clock, "results": results})
    Console(width=160).print(table)


def row(found: dict[str, Any]) -> tuple[str, ...]:
    numbers = (found["ms_a_step"], found["bare_ms_a_step"], found["ratio"])
    return (
        found["model"],
        f"{found['batch_size']:,}",
        str(found["threads"]),
        *(f"{number:.2f}" for number in numbers),
        f"{found['lowest']:.2f} to {found['highest']:.2f}",
        *(f"{found['parts'].get(part, 0.0):.2f}" for part in (*PARTS, "rest")),
    )


if __name__ == "__main__":
    main()
