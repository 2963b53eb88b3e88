"""The common part of the comparisons with RecBole: runs in turns, each in its own process, and their table.

A contestant's record is that of `epochs.run`. Seconds of an epoch are those of a step, median over the epochs after the
first, times the steps of an epoch: where an epoch was cut short by ``--max-steps`` they are scaled up. Seconds until
RecBole's quality are all seconds of training, evaluation left out, until validation is as good as RecBole's best; for
RecBole itself until its best epoch.
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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from epochs import METRIC, Plan
from measured import write_measurements
from rich.console import Console
from rich.table import Table

RECBOLE = "RecBole"
WIDTH = 130  # of the tables at least, in a file or a pipe too
Record = dict[str, Any]
Lists = dict[str, np.ndarray]  # users [n], items [n, 10]


def common_options(description: str | None, models: Sequence[str], epochs: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--data", type=Path, required=True, help="a prepared folder")
    add("--recbole", type=Path, required=True, help="the python of RecBole's environment")
    add("--models", nargs="+", choices=models, default=list(models))
    add("--rounds", type=int, default=1, help="of whole runs, with seeds 0, 1, …")
    add("--threads", type=int, default=2)
    add("--epochs", type=int, default=epochs, help="of RecBole, at most (default: %(default)s)")
    add("--our-epochs", type=int, help="of ours, at most (default: as many)")
    add("--patience", type=int, help="evaluations without a gain after which either stops (default: never)")
    add("--evaluate-every", type=int, default=1, metavar="EPOCHS", help="of RecBole (default: %(default)s)")
    add("--our-evaluate-every", type=int, default=1, metavar="EPOCHS", help="of ours (default: %(default)s)")
    add("--skip-evaluation", action="store_true", help="with --max-steps: times of training alone")
    add("--max-steps", type=int, help="of an epoch: times alone, scaled to whole epochs, no quality; 2 epochs suffice")
    add("--learning-rate", type=float, default=0.001, help="of both (default: %(default)s)")
    add("--ours", nargs="+", default=[], metavar="KEY=VALUE", help="one more contestant: ours with these overrides")
    add("--json", type=Path, metavar="FILE", help="every epoch of every run; written after each round")
    return parser


def plans(arguments: argparse.Namespace) -> tuple[Plan, Plan]:
    """RecBole's and ours. Where times alone are of interest, the last epoch alone is evaluated, or none."""
    if arguments.skip_evaluation and arguments.max_steps is None:
        raise SystemExit("--skip-evaluation: with --max-steps alone, where quality is not measured")
    shared = {"max_steps": arguments.max_steps, "patience": arguments.patience}
    both = arguments.epochs, arguments.our_epochs or arguments.epochs
    every: tuple[int | None, int | None] = (arguments.evaluate_every, arguments.our_evaluate_every)
    if arguments.max_steps is not None:
        every = (None, None) if arguments.skip_evaluation else both
    theirs, ours = (Plan(n, evaluate_every=interval, **shared) for n, interval in zip(both, every, strict=True))
    return theirs, ours


def run_recbole(python: Path, config: dict[str, Any], plan: Plan, threads: int) -> tuple[Record, Lists]:
    """Run RecBole once, in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = {"request": folder / "request.json", "json": folder / "run.json", "lists": folder / "lists.npz"}
        fixed = {"checkpoint_dir": name, "use_gpu": False, "show_progress": False, "metric_decimal_place": 12}
        evaluated = {"metrics": ["NDCG", "Recall", "Hit"], "topk": [10], "valid_metric": "NDCG@10"}
        request = {"config": config | fixed | evaluated, "plan": asdict(plan)}
        files["request"].write_text(json.dumps(request))
        worker = Path(__file__).with_name("recbole_worker.py")
        options = [part for key, file in files.items() for part in (f"--{key}", str(file))]
        start([str(python.absolute()), "-W", "ignore", str(worker), *options], threads, folder)
        with np.load(files["lists"]) as lists:
            told = {key: value for key, value in config.items() if key != "data_path"}  # gone by then
            return json.loads(files["json"].read_text()) | {"config": told}, dict(lists)


def run_ours(overrides: Sequence[str], plan: Plan, threads: int) -> Record:
    with tempfile.TemporaryDirectory() as name:
        request, record = Path(name) / "request.json", Path(name) / "run.json"
        request.write_text(json.dumps({"overrides": list(overrides), "plan": asdict(plan)}))
        worker = Path(__file__).with_name("recbole_ours.py")
        start([sys.executable, str(worker), "--request", str(request), "--json", str(record)], threads)
        return json.loads(record.read_text())


def start(command: list[str], threads: int, folder: Path | None = None) -> None:
    """Run to the end, its progress in plain sight."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    if subprocess.run(command, env=environment, cwd=folder).returncode:
        raise SystemExit(f"failed, see above: {' '.join(command)}")


def play(arguments: argparse.Namespace, play_round: Callable[[str, int], dict[str, Record]]) -> None:
    """Run all rounds of all models, print their table, and write the file of results.

    Args:
        play_round: Of a model and a seed: the records of the contestants, RecBole's among them.
    """
    rounds = []
    for number in range(arguments.rounds):
        for model in arguments.models:
            begin = time.perf_counter()
            rounds.append({"model": model, "seed": number, "runs": play_round(model, number)})
            print(f"round {number + 1}, {model}: {time.perf_counter() - begin:.0f} s", flush=True)
            if arguments.json:
                results = {"summary": summarize(rounds), "rounds": rounds}
                write_measurements(arguments.json, results)
    console = Console()
    console.width = max(console.width, WIDTH)
    for made in tables(summarize(rounds)):
        console.print(made)


def epoch_seconds(record: Record) -> float:
    """Return the seconds of a whole epoch, without the first if there are more."""
    timed = record["epochs"][1:] or record["epochs"]
    return statistics.median(epoch["train_s"] / epoch["steps"] for epoch in timed) * record["steps_per_epoch"]


def evaluation_seconds(record: Record) -> float | None:
    """Return the seconds of validation; None without validation."""
    seconds = [evaluated["evaluation_s"] for evaluated in evaluations(record)]
    return statistics.median(seconds) if seconds else None


def evaluations(record: Record) -> list[dict[str, Any]]:
    return [epoch for epoch in record["epochs"] if "validation" in epoch]


def best_validation(record: Record) -> float:
    return max(epoch["validation"][METRIC] for epoch in evaluations(record))


def seconds_until(record: Record, quality: float) -> float | None:
    """Return the seconds of training until validation reaches a value; None if it never does."""
    seconds = 0.0
    for epoch in record["epochs"]:
        seconds += epoch["train_s"]
        if "validation" in epoch and epoch["validation"][METRIC] >= quality:
            return seconds
    return None


def figures(record: Record, recbole: Record) -> dict[str, float | None]:
    """Return the measurements of one run next to RecBole's of the same round."""
    evaluation, of_recbole = evaluation_seconds(record), evaluation_seconds(recbole)
    found: dict[str, float | None] = {
        "epoch_s": epoch_seconds(record),
        "epoch_ratio": epoch_seconds(recbole) / epoch_seconds(record),
        "evaluation_s": evaluation,
        "evaluation_ratio": None if evaluation is None or of_recbole is None else of_recbole / evaluation,
    }
    if record["test"] is None:
        return found
    goal = best_validation(recbole)
    until, theirs = seconds_until(record, goal), seconds_until(recbole, goal)
    quality = {"validation": best_validation(record), **{f"test {name}": x for name, x in record["test"].items()}}
    quality["test_ratio"] = record["test"][METRIC] / recbole["test"][METRIC] if recbole["test"][METRIC] else None
    return found | quality | {"until_s": until, "until_share": None if until is None else until / theirs}


def summarize(rounds: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a record per model and contestant: medians over rounds; None where a round has none."""
    gathered: dict[tuple[str, str], list[dict[str, float | None]]] = {}
    for entry in rounds:
        for name, record in entry["runs"].items():
            found = figures(record, entry["runs"][RECBOLE])
            gathered.setdefault((entry["model"], name), []).append(found)
    return [
        {"model": model, "contestant": name, "rounds": len(each)}
        | {key: None if None in (x := [f[key] for f in each]) else statistics.median(x) for key in each[0]}
        for (model, name), each in gathered.items()
    ]


Columns = dict[str, tuple[str, str]]  # head: key of a summary's record, form
SPEED: Columns = {
    "epoch, s": ("epoch_s", "{:,.2f}"),
    "times as fast": ("epoch_ratio", "{:.1f}"),
    "evaluation, s": ("evaluation_s", "{:,.2f}"),
    "times as fast ": ("evaluation_ratio", "{:.1f}"),
}
QUALITY: Columns = {
    "validation NDCG@10": ("validation", "{:.4f}"),
    "test NDCG@10": ("test ndcg@10", "{:.4f}"),
    "recall@10": ("test recall@10", "{:.4f}"),
    "HR@10": ("test hr@10", "{:.4f}"),
    "to RecBole's": ("test_ratio", "{:.3f}"),
    "s to quality": ("until_s", "{:,.1f}"),
    "share of time": ("until_share", "{:.1%}"),
}


def tables(summary: list[dict[str, Any]]) -> list[Table]:
    made = [table("Seconds", SPEED, summary)]
    if any("validation" in record for record in summary):
        quality = table("Quality", QUALITY, summary)
        quality.caption = (
            "to RecBole's: test NDCG@10. s to quality: of training, until validation is as good as RecBole's best, and"
            " their share of RecBole's; -: never"
        )
        made.append(quality)
    return made


def table(title: str, columns: Columns, summary: list[dict[str, Any]]) -> Table:
    result = Table("model", "", *columns, title=title)
    for record in summary:
        values = ((record.get(key), form) for key, form in columns.values())
        result.add_row(
            record["model"], record["contestant"], *("-" if x is None else form.format(x) for x, form in values)
        )
    return result


def check_same(ours: dict[str, float], reported: dict[str, float]) -> None:
    """Exit if two programs' metrics of the same lists differ."""
    if wrong := {name: (ours[name], x) for name, x in reported.items() if abs(ours[name] - x) > 1e-6}:
        raise SystemExit(f"metrics of RecBole's lists, ours and RecBole's: {wrong}: they do not mean the same.")


def check_steps(runs: dict[str, Record]) -> None:
    """Exit if epochs differ in their number of steps, so that batches are not of the same rows."""
    if len(set(steps := {name: record["steps_per_epoch"] for name, record in runs.items()}.values())) > 1:
        raise SystemExit(f"steps of an epoch: {steps}: batches differ.")


def describe(overrides: Sequence[str]) -> str:
    """Describe the further contestant."""
    return "ours, " + " ".join(override.rsplit(".", 1)[-1] for override in overrides)
