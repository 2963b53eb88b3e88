"""Speed and memory of the quantizer, forward and backward, next to its usual implementations and searches.

    pip install --no-deps -r benchmarks/requirements-quantizer.txt
    python benchmarks/quantizer.py --json FILE

Every contestant of `quantizer_rivals.py` is measured in its own process, all in turn, round by round. After a
warm-up its passes alternate with one bare matmul ``[N, 64] x [64, v_1]`` in the same process, and "x matmul" is the
time over the mean of the matmuls just before and after: the median of a process, then of the rounds. "x ours" is that
ratio over our quantizer's without ids, in the same round. FAISS searches level 1 with its flat L2 index, forward only,
as do the contestants of the second table; vector-quantize-pytorch is set as its builder says.

Memory: a pass over 61 vectors loads the libraries; then the peak of resident memory (VmHWM of ``/proc``, reset through
``clear_refs``) during the first whole pass, over what was resident just before it. For the bare matmul that is its
output. A first pass of over 4 seconds is the measurement itself; at ``--limit`` seconds it is stopped, once and for
all rounds, and "x ours" is a lower bound. vector-quantize-pytorch at (8000, 400, 20) needs some 12 GB until then.

The machine must be idle. Two threads wait for each other several times a pass: where another process takes one of two
cores, all times grow, those of short passes the most. The rows of the bare matmul show it. On a busy machine
``--threads 1 --clock cpu`` counts the CPU time of one thread instead.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import signal
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions, version
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from measured import write_measurements
from quantizer_rivals import CONTESTANTS, DIM, SEARCHES, Contestant, Step, build_matmul, build_problem
from rich.console import Console
from rich.table import Table

from cove_dist.training.memory import resident_mb

ALL = CONTESTANTS | SEARCHES
SLOW = 3.0  # seconds
PASSES = 2  # at least
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WARM_UP = 61  # vectors; equal to no other size, or torch.compile would tie the two together
WIDTH = 108  # of the tables, at least
HEADINGS = ("ms", "x matmul", "low - high", "peak MB", "x ours", "goal")
FACTORS = {"plain": 2, "vector_quantize": 10}  # how many times the time of ours they should take, at FACTORS_AT vectors
FACTORS_AT = 65_536


@dataclass(frozen=True)
class Size:
    vectors: int
    levels: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Size:
        vectors, levels = text.split(":")
        return cls(int(vectors), tuple(int(level) for level in levels.split(",")))

    def __str__(self) -> str:
        return f"{self.vectors}:{','.join(map(str, self.levels))}"


GOALS = {  # the ratio to the bare matmul that ours should not exceed
    Size(65_536, (500, 10)): 1.4,
    Size(65_536, (4000, 200, 10)): 1.5,
    Size(65_536, (8000, 400, 20)): 1.4,
    Size(5_000, (8000, 400, 20)): 1.8,
}


@dataclass(frozen=True)
class Settings:
    threads: int = 2
    seconds: float = 0.6  # of repeated passes in a process
    limit: int = 30  # seconds of a first pass; 0: none
    clock: str = "wall"


@dataclass(frozen=True)
class Measurement:
    """Medians over the passes of one process, or why there are none."""

    seconds: float = 0.0
    matmul_seconds: float = 0.0
    ratio: float = 0.0
    peak_mb: float = 0.0
    passes: int = 0
    missing: str = ""


def measure(name: str, size: Size, settings: Settings) -> Measurement:
    """Measure in this process, which SIGALRM ends if the first pass exceeds the limit."""
    build = ALL[name].build
    problem = build_problem(size.vectors, size.levels)
    build(problem.head(WARM_UP))()
    step = build(problem)
    with contextlib.suppress(OSError):  # where it is refused, the peak counts from the start of the process
        Path("/proc/self/clear_refs").write_text("5")
    before = resident_mb()
    signal.alarm(settings.limit)
    clock = CLOCKS[settings.clock]
    first = timed(step, clock)
    signal.alarm(0)
    peak_mb = peak_resident_mb() - before

    matmul = build_matmul(problem)
    matmul()
    own, bare = [], [timed(matmul, clock)]
    if first > SLOW:
        own.append(first)
        bare.append(timed(matmul, clock))
    deadline = time.perf_counter() + settings.seconds
    while first <= SLOW and (len(own) < PASSES or time.perf_counter() < deadline):
        own.append(timed(step, clock))
        bare.append(timed(matmul, clock))
    ratio = statistics.median(own[i] / statistics.mean(bare[i : i + 2]) for i in range(len(own)))
    return Measurement(statistics.median(own), statistics.median(bare), ratio, peak_mb, len(own))


def timed(step: Step, clock: Callable[[], float]) -> float:
    start = clock()
    step()
    return clock() - start


def peak_resident_mb() -> float:
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024


def measure_in_process(name: str, size: Size, settings: Settings) -> Measurement:
    """Call `measure` in a new process, forked from one that has only imported torch."""
    if not ALL[name].installed:
        return Measurement(missing="not installed")
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # for FAISS, which has its own OpenMP
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["quantizer_rivals"])
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_measurement, args=(sender, name, size, settings))
    process.start()
    sender.close()
    with contextlib.suppress(EOFError), receiver:
        return receiver.recv()
    process.join()
    reasons = {-signal.SIGALRM: f"> {settings.limit} s", -signal.SIGKILL: "out of memory"}
    if process.exitcode not in reasons:
        raise SystemExit(f"{name} at {size} failed, status {process.exitcode}: its error is above")
    return Measurement(missing=reasons[process.exitcode])


def send_measurement(sender: Connection, name: str, size: Size, settings: Settings) -> None:
    torch.set_num_threads(settings.threads)
    sender.send(measure(name, size, settings))


Results = dict[Size, dict[str, list[Measurement]]]


def run_rounds(names: Iterable[str], sizes: Sequence[Size], rounds: int, settings: Settings) -> Results:
    """Return one measurement per round, or a single one that says why there are none."""
    results: Results = {size: {name: [] for name in names} for size in sizes}
    for number in range(rounds):
        for size, measured in results.items():
            start = time.perf_counter()
            for name, measurements in measured.items():
                if not (measurements and measurements[-1].missing):
                    measurements.append(measure_in_process(name, size, settings))
            print(f"round {number + 1} of {rounds}, {size}: {time.perf_counter() - start:.0f} s", flush=True)
    return results


Figures = dict[str, float | str]


def summarize(name: str, size: Size, measured: dict[str, list[Measurement]], limit: int) -> Figures:
    """Medians over rounds, and what is asked of them."""
    measurements, ours = measured[name], measured["ours"]
    if ours[-1].missing:
        raise SystemExit(f"the quantizer itself at {size}: {ours[-1].missing}. Nothing to compare with; raise --limit")
    figures: Figures = {"missing": measurements[-1].missing}
    if not figures["missing"]:
        ratios = [m.ratio for m in measurements]
        figures |= {
            "ms": statistics.median(m.seconds for m in measurements) * 1e3,
            "ratio": statistics.median(ratios),
            "lowest": min(ratios),
            "highest": max(ratios),
            "times_ours": statistics.median(m.ratio / o.ratio for m, o in zip(measurements, ours, strict=True)),
            "peak_mb": statistics.median(m.peak_mb for m in measurements),
        }
    elif figures["missing"].startswith(">"):
        figures["times_ours"] = limit / statistics.median(m.seconds for m in ours)
    return figures | {"goal": goal(name, size, figures)}


def goal(name: str, size: Size, figures: Figures) -> str:
    if name.startswith("ours") and size in GOALS and "ratio" in figures:
        return f"<= {GOALS[size]}: {'met' if figures['ratio'] <= GOALS[size] else 'missed'}"
    if name in FACTORS and size.vectors == FACTORS_AT and "times_ours" in figures:
        missed = "unknown" if figures["missing"] else "missed"
        return f">= {FACTORS[name]} x ours: {'met' if figures['times_ours'] >= FACTORS[name] else missed}"
    return ""


def table(
    title: str, contestants: dict[str, Contestant], summary: dict[Size, dict[str, Figures]], headings: Sequence[str]
) -> Table:
    table = Table("", title=title, caption="medians over rounds")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "goal" else "right", no_wrap=True)
    for size, figures in summary.items():
        table.add_section()
        table.add_row(f"[bold]{size.vectors:,} x {size.levels}")
        for name, contestant in contestants.items():
            table.add_row(contestant.label, *cells(figures[name])[: len(headings)])
    return table


def cells(figures: Figures) -> tuple[str, ...]:
    """Under HEADINGS."""
    if figures["missing"]:
        at_least = f"> {figures['times_ours']:.1f}" if "times_ours" in figures else ""
        return figures["missing"], "", "", "", at_least, figures["goal"]
    ratio, spread = f"{figures['ratio']:.2f}", f"{figures['lowest']:.2f} - {figures['highest']:.2f}"
    costs = (f"{figures['ms']:,.1f}", ratio, spread, f"{figures['peak_mb']:,.0f}")
    return *costs, f"{figures['times_ours']:.2f}", figures["goal"]


def main() -> None:
    arguments = parse_arguments()
    settings = Settings(arguments.threads, arguments.seconds, arguments.limit, arguments.clock)
    results = run_rounds(ALL, arguments.size, arguments.rounds, settings)
    summary = {
        size: {name: summarize(name, size, measured, settings.limit) for name in ALL}
        for size, measured in results.items()
    }
    distinct = {size: count_distinct(size.vectors) for size in summary}
    console = wide_console()
    console.print(table("Forward and backward of the quantizer", CONTESTANTS, summary, HEADINGS))
    console.print(table("Search of level 1", SEARCHES, summary, HEADINGS[:4]))
    for size, number in distinct.items():
        console.print(f"{size.vectors:,} vectors by Zipf: {number:,} distinct ids")
    if arguments.json:
        sizes = [
            {"size": asdict(size) | {"distinct_by_zipf": distinct[size]}, "figures": summary[size]}
            | {"rounds": {name: [asdict(m) for m in measurements] for name, measurements in results[size].items()}}
            for size in summary
        ]
        header = {"settings": asdict(settings) | {"rounds": arguments.rounds, "dim": DIM}, "versions": versions()}
        write_measurements(arguments.json, header | {"sizes": sizes})


def wide_console() -> Console:
    return Console(width=max(WIDTH, Console().width))


def count_distinct(vectors: int) -> int:
    return len(build_problem(vectors, ()).zipf_ids.unique())


def versions() -> dict[str, str]:
    distributions = packages_distributions()
    packages = ["torch", *{c.package for c in ALL.values() if c.package and c.installed}]
    return {name: version(name) for package in packages for name in distributions[package]}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"type": Size.parse, "nargs": "+", "default": list(GOALS), "metavar": "N:v_1,v_2,..."}
    parser.add_argument("--size", **sizes, help="vectors and levels; the four with goals unless given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=Settings.threads)
    parser.add_argument("--seconds", type=float, default=Settings.seconds, help="of repeated passes in a process")
    parser.add_argument("--clock", choices=list(CLOCKS), default=Settings.clock, help="cpu: CPU time of one thread")
    parser.add_argument("--limit", type=int, default=Settings.limit, help="seconds a first pass may take")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write the measurements, with those of every process"
    )
    arguments = parser.parse_args()
    if arguments.clock == "cpu" and arguments.threads != 1:
        parser.error("--clock cpu: counts one thread; needs --threads 1")
    return arguments


if __name__ == "__main__":
    main()
