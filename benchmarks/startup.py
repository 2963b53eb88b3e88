"""CPU time of short runs, by stage: help, the first step, and whole epochs with validation and checkpoints.

    cove prepare data=toys
    python benchmarks/startup.py --json FILE
    PYTHONPATH=OTHER_CHECKOUT python benchmarks/startup.py    # before a change

Trains BPRMF with batches of 4,096 in a separate process, as always except for the clocks around its stages:
``imports`` up to the subcommand, ``configuration`` until it is composed and checked, ``build`` of loaders, tables and
plan, ``first_step``, and then ``steps``, ``validation``, ``saving`` (until the background takes over) and the ``rest``.
The process ends as `cove` does. ``step at`` sums the stages until the end of the first step. CPU time, user and system,
of all threads; it grows on a busy machine too, as caches are shared.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

WORKER = "COVE_STARTUP_STAGES"  # an environment variable: the file for the stages
SETTINGS = ("data=toys", "trainer=cf", "model=bprmf", "trainer.batch_size=4096", "trainer.early_stopping.patience=null",
            "trainer.device=cpu")  # fmt: skip
UNTIL_STEP = ("imports", "configuration", "build", "first_step")
STAGES = (*UNTIL_STEP, "steps", "validation", "saving", "rest")


class Stages:
    """CPU seconds of the stages of this process."""

    def __init__(self) -> None:
        self.seconds = defaultdict[str, float](float)
        self._last = 0.0  # since the start of the process

    def end(self, name: str) -> None:
        """End a stage that began where the previous one ended."""
        now = time.process_time()
        self.seconds[name] += now - self._last
        self._last = now

    def then(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function after which a stage ends."""

        def call(*args: Any, **kwargs: Any) -> Any:
            result = function(*args, **kwargs)
            self.end(name)
            return result

        return call

    def within(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is a stage within ``steps``."""

        def call(*args: Any, **kwargs: Any) -> Any:
            self.end("steps")
            result = function(*args, **kwargs)
            self.end(name)
            return result

        return call


def work(path: Path, arguments: list[str]) -> None:
    """Train, and write the seconds of the stages to a file."""
    from cove_dist import cli

    stages, imported = Stages(), cli._module

    def watched(name: str) -> ModuleType:
        module = imported(name)
        stages.end("imports")
        from cove_dist.training import program
        from cove_dist.training.loop import TrainingLoop
        from cove_dist.training.trainer import Trainer

        after_step = TrainingLoop.after_step

        def first(*args: Any) -> None:
            after_step(*args)
            stages.end("first_step")
            TrainingLoop.after_step = after_step

        program.load_run_config = stages.then("configuration", program.load_run_config)
        Trainer.__init__ = stages.then("build", Trainer.__init__)
        TrainingLoop.after_step = first
        Trainer.evaluate = stages.within("validation", Trainer.evaluate)
        TrainingLoop.save = stages.within("saving", TrainingLoop.save)
        return module

    def ended() -> None:
        stages.end("rest")
        path.write_text(json.dumps(stages.seconds))

    cli._module = watched
    sys.argv[1:] = ["train", *arguments]
    atexit.register(ended)
    cli.main()


def measure(arguments: list[str], data: Path) -> dict[str, Any]:
    """Return seconds, CPU seconds and the CPU seconds of the stages of one run."""
    with tempfile.TemporaryDirectory() as folder:
        stages = Path(folder) / "stages.json"
        run = [__file__, *SETTINGS, f"data.path={data}", f"output={folder}/run", *arguments]
        found = spent([sys.executable, *run], {WORKER: str(stages)})
        return found | {"stages": json.loads(stages.read_text())}


def spent(command: list[str], variables: dict[str, str]) -> dict[str, float]:
    """Return seconds and CPU seconds of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=os.environ | variables, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"s": time.perf_counter() - start, "cpu_s": cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/toys"), help="the prepared folder")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    runs: dict[str, Callable[[], dict[str, Any]]] = {
        "cove train --help": lambda: spent([sys.executable, "-m", "cove_dist", "train", "--help"], {}),
        "one step": lambda: measure(["trainer.epochs=1", "trainer.max_steps=1"], arguments.data),
        f"{arguments.epochs} epochs": lambda: measure([f"trainer.epochs={arguments.epochs}"], arguments.data),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            found[name].append(run())
    results = {name: medians(rounds) for name, rounds in found.items()}
    table = Table("run", "s", "CPU s", "step at", *STAGES)
    for name, result in results.items():
        times = [result["s"], result["cpu_s"]]
        if stages := result.get("stages"):
            times += [sum(map(stages.get, UNTIL_STEP)), *(stages.get(stage, 0.0) for stage in STAGES)]
        table.add_row(name, *(f"{seconds:.2f}" for seconds in times))
    Console(width=160).print(table)
    if arguments.json:
        from measured import write_measurements

        write_measurements(arguments.json, {"rounds": arguments.rounds, "results": results})


def medians(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians over the rounds, by name."""
    return {
        name: medians([each[name] for each in rounds])
        if isinstance(value, dict)
        else statistics.median(each.get(name, 0.0) for each in rounds)
        for name, value in rounds[0].items()
    }


if __name__ == "__main__":
    if WORKER in os.environ:
        work(Path(os.environ[WORKER]), sys.argv[1:])
    else:
        main()
