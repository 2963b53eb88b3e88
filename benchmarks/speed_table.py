"""One table of all measured speeds, with their goals, from the files that the benchmarks write.

    make benchmarks MEASURED=results/speed
    python benchmarks/speed_table.py --readme results/speed/README.md

A row is written only from a file of measurements, and a benchmark that was not run has no row.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranks import CONTESTS
from rich.console import Console
from startup import UNTIL_STEP

from cove_dist.experiments.text import TextTable, write_between_markers

BEGIN, END = "<!-- speed: made by benchmarks/speed_table.py -->", "<!-- end of speed -->"
TITLE = "Every speed and its goal"
HEADER = ("work", "ours", "next to", "ratio", "goal", "measured")
NOTE = (
    "Made by `benchmarks/speed_table.py`. Each ratio is made within one run of a program of `benchmarks/`, its median"
    " over rounds with the lowest and the highest; where both were measured next to a third, it is the ratio of their"
    " ratios to it, not of the two times. A goal of at most (≤) bounds our time over the other's; a goal of at least"
    " (≥) bounds our speed over the other's. Times are of the wall clock, unless CPU time is named."
)

Content = Mapping[str, Any]


def at_most(goal: float, measured: float, unit: str = "") -> str:
    return f"≤ {goal:g}{unit}: {'met' if measured <= goal else 'missed'}"


def at_least(goal: float, measured: float) -> str:
    return f"≥ {goal:g}: {'met' if measured >= goal else 'missed'}"


@dataclass(frozen=True)
class Speed:
    """A row: a piece of work, ours and what it is compared with.

    Attributes:
        work: What is done, with its size.
        ours: Our time or speed, with its unit.
        other: The other's name, and its time or speed; empty where there is no other.
        ratio: Of ours and the other, if there is one.
        span: Lowest and highest ratio over rounds.
        goal: Goal, and whether it is met.
    """

    work: str
    ours: str
    other: str
    ratio: float | None
    span: tuple[float, float] | None = None
    goal: str = ""

    def cells(self, measured: str) -> tuple[str, ...]:
        ratio = "" if self.ratio is None else f"{self.ratio:.2f}"
        if self.span is not None and self.span[0] != self.span[1]:
            ratio += f" ({self.span[0]:.2f} to {self.span[1]:.2f})"
        return self.work, self.ours, self.other, ratio, self.goal, measured


def _span(found: Content) -> tuple[float, float]:
    return found["lowest"], found["highest"]


def bare(content: Content) -> Iterator[Speed]:
    """Steps next to a hand-written loop of plain torch."""
    for found in content["results"]:
        threads = _threads(found["threads"])
        work = f"training step, {found['model']}, batch {found['batch_size']:,}, {threads}{_clock(content)}"
        ours, other = f"{found['ms_a_step']:.1f} ms", f"bare loop of torch: {found['bare_ms_a_step']:.1f} ms"
        goal = at_most(1.3 if found["batch_size"] < 4096 else 1.15, found["ratio"])
        yield Speed(work, ours, other, found["ratio"], _span(found), goal)


def ranks(content: Content) -> Iterator[Speed]:
    """Two ranks next to one."""
    for name, contest in content["results"].items():
        found = contest["summary"]
        work = f"two ranks of one thread, {name}, batch {contest['batch_size']:,}"
        ours, other = _samples(found["two"]), f"one rank of one thread: {_samples(found['one'])}"
        aim = CONTESTS[name].goal
        goal = "" if aim is None else at_least(aim, found["speed_up"])
        yield Speed(work, ours, other, found["speed_up"], _span(found), goal)


def ctr_throughput(content: Content) -> Iterator[Speed]:
    """CTR heads next to FuxiCTR, and next to the products of matrices alone."""
    others = {found["head"]: found for found in content["summary"] if found["contestant"] == "FuxiCTR"}
    for found in content["summary"]:
        if not found["contestant"].endswith("1 process"):
            continue
        work, ours = f"training, {found['head']}, {found['contestant']}", _samples(found["samples_per_s"])
        if found["head"] in others:
            other = f"FuxiCTR: {_samples(others[found['head']]['samples_per_s'])}"
            yield Speed(work, ours, other, found["ratio"], _span(found))
        if found["contestant"] == "base, 1 process":
            share = found["matmul_share"]
            yield Speed(work, ours, "its products of matrices at peak rate", share, None, at_least(0.95, share))


def stream(content: Content) -> Iterator[Speed]:
    """The stream from Parquet next to Arrow's scan."""
    scan = next(found for found in content["cases"] if found["loader"] == "scan")
    for found in content["cases"]:
        if found["loader"] != "stream":
            continue
        work = f"reading Parquet, {'shuffled' if found['shuffle'] else 'in order'}, batch {found['batch_size']:,}"
        ours, other = (f"{each['rows_per_cpu_second'] / 1e6:.1f} M rows/CPU s" for each in (found, scan))
        ratio = found["ratio_to_scan"]
        goal = at_least(0.5 if found["shuffle"] else 0.8, ratio)
        yield Speed(work, ours, f"pyarrow's scan: {other}", ratio, None, goal)


def quantizer(content: Content) -> Iterator[Speed]:
    """The quantizer next to its matrix product and to other implementations."""
    others = {"plain": "plain torch", "vector_quantize": "vector-quantize-pytorch"}
    for found in content["sizes"]:
        size, figures = found["size"], found["figures"]
        times = f"{figures['ours']['ms']:.1f} ms", f"bare product: {figures['matmul']['ms']:.1f} ms"
        threads = _threads(content["settings"]["threads"])
        codebooks = tuple(size["levels"])
        work = f"quantizer, {size['vectors']:,} vectors, codebooks {codebooks}, {threads}{_clock(content['settings'])}"
        yield Speed(work, *times, figures["ours"]["ratio"], _span(figures["ours"]), figures["ours"]["goal"])
        for name, label in others.items():
            if not figures[name]["missing"]:
                other = f"{label}: {figures[name]['ms']:.1f} ms"
                yield Speed(work, times[0], other, figures[name]["times_ours"], None, figures[name]["goal"])


def startup(content: Content) -> Iterator[Speed]:
    """Whole short programs, and the time until the end of the first step."""
    runs = content["results"]
    times = {
        "cove train --help": (runs["cove train --help"]["s"], 0.5),
        "bprmf on Toys until the end of the first step": (sum(map(runs["one step"]["stages"].get, UNTIL_STEP)), 6.0),
        "20 epochs of bprmf on Toys": (runs["20 epochs"]["s"], 10.0),
    }
    for name, (seconds, goal) in times.items():
        yield Speed(f"program, {name}", f"{seconds:.1f} s", "", None, None, at_most(goal, seconds, " s"))


def negatives(content: Content) -> Iterator[Speed]:
    """Steps with other negatives and with COVE next to those of the base."""
    for model, sources in content["results"].items():
        base, *_ = sources
        for name, found in sources.items():
            if name != base:
                work = f"training step, {model}, {name}{_clock(content)}"
                other = f"{base} negatives: {sources[base]['ms']:.1f} ms"
                yield Speed(work, f"{found['ms']:.1f} ms", other, found["ratio"], _span(found))


def evaluation(content: Content) -> Iterator[Speed]:
    """Rankings next to their bare operations."""
    for found in content["results"]:
        work = f"evaluation, {found['ranking']}, {found['users']:,} users, {_threads(found['threads'])}"
        other = f"bare operations of torch: {found['bare_seconds']:.2f} s"
        yield Speed(work, f"{found['seconds']:.2f} s", other, found["ratio"], _span(found))


def sequential_decoding(content: Content) -> Iterator[Speed]:
    """Continuations by FANS next to those by BERT4Rec."""
    for found in content["summary"]:
        work = f"continuing 1,000 lists, FANS, {found['items']:,} items, {found['targets']} targets"
        other = f"BERT4Rec: {found['BERT4Rec']:.2f} s"
        yield Speed(work, f"{found['FANS']:.2f} s", other, found["ratio"], _span(found))


def recbole(content: Content, name: str) -> Iterator[Speed]:
    """Epochs, evaluation and whole runs next to RecBole.

    An epoch of its sequential models has other rows than ours, so only their whole runs are compared. Files whose names
    end in ``_short`` have epochs that were cut and scaled up, without metrics: they end before RecBole's first
    evaluation, after which its epochs are faster.
    """
    short = ", short run" if name.endswith("_short") else ""
    name = name.removesuffix("_short")
    goals = {"toys_bprmf": 3.0, "amazon_book_bprmf": 5.0, "toys_neumf": 3.0}
    others = {found["model"]: found for found in content["summary"] if found["contestant"] == "RecBole"}
    data = "next" if name.startswith("next") else name.rsplit("_", 1)[0]
    for found in content["summary"]:
        if found["contestant"] == "RecBole":
            continue
        setting = found["contestant"].removeprefix("ours").removeprefix(", ").removeprefix("name=")
        work = f"{found['model']} on {data}" + (f", {setting}" if setting else "") + short
        other = others[found["model"]]
        if data != "next":
            goal = at_least(goals[name], found["epoch_ratio"]) if name in goals else ""
            yield _next_to_recbole(f"epoch, {work}", found["epoch_s"], other["epoch_s"], goal)
        if other.get("evaluation_s") is not None:
            yield _next_to_recbole(f"evaluation, {work}", found["evaluation_s"], other["evaluation_s"])
        if "until_s" in found:
            reached = f"training until RecBole's best validation metric, {work}"
            yield _next_to_recbole(reached, found["until_s"], other["until_s"])


def _next_to_recbole(work: str, ours: float | None, theirs: float, goal: str = "") -> Speed:
    other = f"RecBole: {theirs:.2f} s"
    if ours is None:
        return Speed(work, "not reached", other, None)
    return Speed(work, f"{ours:.2f} s", other, theirs / ours, None, goal)


def _clock(settings: Content) -> str:
    return ", CPU time" if settings.get("clock") == "cpu" else ""


def _threads(number: int) -> str:
    return f"{number} thread{'s' if number > 1 else ''}"


def _samples(value: float) -> str:
    return f"{value:,.0f} samples/s"


Reader = Callable[[Content], Iterator[Speed]]
READERS: dict[str, Reader] = {
    reader.__name__: reader
    for reader in (bare, negatives, ranks, ctr_throughput, stream, quantizer, startup, evaluation, sequential_decoding)
}


def speed_table(folder: Path, recbole_folder: Path) -> TextTable:
    """Return the table of the files of two folders.

    Args:
        folder: Files named after the programs that wrote them, as `make benchmarks` names them; ``NAME.PART.json`` has
            what was measured at another time.
        recbole_folder: Files of ``benchmarks/recbole_cf.py`` and ``benchmarks/recbole_sequential.py``.
    """
    rows: list[tuple[str, ...]] = []
    for name, reader in READERS.items():
        for path in sorted(folder.glob(f"{name}.json")) + sorted(folder.glob(f"{name}.*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            rows += [speed.cells(_measured(content)) for speed in reader(content)]
    for path in sorted(recbole_folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        rows += [speed.cells(_measured(content)) for speed in recbole(content, path.stem)]
    return TextTable(TITLE, HEADER, tuple(rows), (NOTE,))


def _measured(content: Content) -> str:
    return content["measured"]["date"] if "measured" in content else "earlier"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/speed"), help="files of `make benchmarks`")
    parser.add_argument(
        "--recbole", type=Path, default=Path("results/recbole"), help="files of the programs next to RecBole"
    )
    parser.add_argument("--readme", type=Path, metavar="FILE", help="written between its markers; default: printed")
    arguments = parser.parse_args()
    text = speed_table(arguments.folder, arguments.recbole).markdown()
    if arguments.readme is None:
        Console(width=200).print(text, markup=False, highlight=False)
    else:
        write_between_markers(arguments.readme, BEGIN, END, text)


if __name__ == "__main__":
    main()
