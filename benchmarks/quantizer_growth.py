"""Growth of the quantizer's time and peak memory, forward and backward, with vectors N, codes v_1 and levels H.

    python benchmarks/quantizer_growth.py --json FILE --plot FILE.png

Measured as in `quantizer.py`, on an idle machine: without ids, each size in its own process, all in turn,
medians over rounds. The exponents are slopes of straight lines fitted to the logarithms. Memory grows with N, and with
v_1 and H only by the codebooks, never by N times v_1.

From N = 131,072 a single ``[N, 64]`` array is over 32 MB, which glibc hands back to the system after every use, and the
page faults of the next use take part in the time. Under ``MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000`` it
keeps them: the difference between the two runs is that part.
"""

from __future__ import annotations

import argparse
import math
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path

from measured import write_measurements
from quantizer import Results, Settings, Size, run_rounds, wide_console
from rich.table import Table

VECTORS = 65_536
SERIES: dict[str, dict[int, Size]] = {
    "N": {n: Size(n, (500, 10)) for n in (4_096, 16_384, 65_536, 262_144, 1_048_576)},
    "v_1": {v: Size(VECTORS, (v, 10)) for v in (100, 300, 1000, 3000, 8000)},
    "H": {h: Size(VECTORS, (1000, 100, 30, 10)[:h]) for h in (1, 2, 3, 4)},
}


@dataclass(frozen=True)
class Point:
    """Medians over rounds."""

    x: int
    size: Size
    ms: float
    ratio: float
    peak_mb: float


def points(series: dict[int, Size], results: Results) -> list[Point]:
    line = []
    for x, size in series.items():
        rounds = results[size]["ours"]
        ms = statistics.median(m.seconds for m in rounds) * 1e3
        line.append(
            Point(x, size, ms, statistics.median(m.ratio for m in rounds), statistics.median(m.peak_mb for m in rounds))
        )
    return line


def exponent(line: list[Point], quantity: str) -> float:
    """Fit p of ``quantity ~ x^p``."""
    logarithms = [(math.log(point.x), math.log(getattr(point, quantity))) for point in line]
    return statistics.linear_regression(*zip(*logarithms, strict=True)).slope


def show(lines: dict[str, list[Point]]) -> Table:
    table = Table("against", title="Growth of the quantizer, forward and backward")
    for heading in ("N", "levels", "ms", "us a vector", "x matmul", "peak MB", "bytes a vector"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, line in lines.items():
        table.add_section()
        for point in line:
            vectors = point.size.vectors
            numbers = (f"{point.ms:,.2f}", f"{point.ms * 1e3 / vectors:.3f}", f"{point.ratio:.2f}")
            memory = (f"{point.peak_mb:,.1f}", f"{point.peak_mb * 2**20 / vectors:,.0f}")
            table.add_row(name, f"{vectors:,}", f"{point.size.levels}", *numbers, *memory)
    return table


def plot(lines: dict[str, list[Point]], file: Path) -> None:
    """Plot time above, memory below, on logarithmic axes; dashed: slope 1 from the first point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(lines), 7), layout="constrained")
    axes = figure.subplots(2, len(lines), squeeze=False)
    for row, (quantity, label) in enumerate((("ms", "time, ms"), ("peak_mb", "peak memory, MB"))):
        for column, (name, line) in enumerate(lines.items()):
            x, y = [point.x for point in line], [getattr(point, quantity) for point in line]
            axis = axes[row, column]
            axis.loglog(x, y, marker="o")
            axis.loglog(x, [y[0] * value / x[0] for value in x], "--", color="gray", label="slope 1")
            axis.set_xticks(x, [f"{value:,}" for value in x])
            axis.set_xticks([], minor=True)
            axis.set(xlabel=name, ylabel=label)
            axis.legend()
    figure.savefig(file)


def main() -> None:
    arguments = parse_arguments()
    settings = Settings(arguments.threads, arguments.seconds, limit=0)
    chosen = {name: SERIES[name] for name in arguments.against}
    sizes = [size for series in chosen.values() for size in series.values()]
    results = run_rounds(["ours"], sizes, arguments.rounds, settings)
    lines = {name: points(series, results) for name, series in chosen.items()}
    exponents = {
        name: {quantity: exponent(line, quantity) for quantity in ("ms", "peak_mb")} for name, line in lines.items()
    }
    console = wide_console()
    console.print(show(lines))
    for name, of_line in exponents.items():
        console.print(f"time ~ {name}^{of_line['ms']:.2f}, peak memory ~ {name}^{of_line['peak_mb']:.2f}")
    if arguments.json:
        report = {"settings": asdict(settings) | {"rounds": arguments.rounds}, "exponents": exponents}
        report["lines"] = {name: [asdict(point) for point in line] for name, line in lines.items()}
        write_measurements(arguments.json, report)
    if arguments.plot:
        plot(lines, arguments.plot)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", nargs="+", choices=SERIES, default=list(SERIES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=Settings.threads)
    parser.add_argument("--seconds", type=float, default=Settings.seconds, help="of repeated passes in a process")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the measurements")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="also draw them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
