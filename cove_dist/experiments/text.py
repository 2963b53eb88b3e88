"""Tables of strings, as Markdown, and the numbers in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cove_dist.errors import ConfigError
from cove_dist.experiments.statistics import mean_and_deviation
from data_pipeline.files import replaced_file

MISSING = "missing"
_FEWEST_DECIMALS, _MOST_DECIMALS = 4, 7


@dataclass(frozen=True)
class TextTable:
    """A table of strings.

    Attributes:
        title: Also the caption.
        header: Header of every column.
        rows: Rows with one string per heading.
        notes: Remarks that a reader must know, a line each.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        lines = [self.header, tuple("---" for _ in self.header), *self.rows]
        table = "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines)
        return "\n\n".join([f"## {self.title}", *self.notes, table]) + "\n"


def mean_and_deviation_text(values: Sequence[float]) -> str:
    """Return text such as ``0.7561 ± 0.0042``, or a single value without a deviation."""
    mean, deviation = mean_and_deviation(values)
    if math.isnan(mean):
        return MISSING
    if math.isnan(deviation):
        return number(mean)
    digits = decimals(mean)
    return f"{mean:,.{digits}f} ± {deviation:,.{digits}f}"


def decimals(mean: float) -> int:
    """Return the decimals that show a mean and its deviation: four, as many as show three digits of a smaller mean."""
    if abs(mean) >= 1000:
        return 0
    if not 0 < abs(mean) < 1:
        return _FEWEST_DECIMALS
    return min(max(2 - math.floor(math.log10(abs(mean))), _FEWEST_DECIMALS), _MOST_DECIMALS)


def number(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def percent(value: float | None) -> str:
    """Format a percentage with its sign, such as ``+5.95 %``; one of 0 is left out."""
    return MISSING if value is None or not math.isfinite(value) else f"{value:+.2f} %"


def p_value(value: float) -> str:
    if math.isnan(value):
        return "not tested"
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def write_between_markers(path: Path, begin: str, end: str, text: str) -> None:
    """Replace what a file has between two markers.

    Raises:
        ConfigError: The file lacks one of the markers.
    """
    before, found, rest = path.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ConfigError(f"{path}: needs the lines {begin} and {end}, between which the table is written")
    with replaced_file(path) as file:
        file.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")
