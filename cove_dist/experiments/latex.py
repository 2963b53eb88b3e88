r"""LaTeX tables for the packages booktabs and siunitx (version 3), narrow enough for a column of text.

Their preamble is `PREAMBLE`. Widths are estimated for \footnotesize, in points.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from cove_dist.experiments.statistics import mean_and_deviation
from cove_dist.experiments.text import decimals

TEXT_WIDTH = 345.0  # of the class article at 10 points, the narrowest of the usual ones with a single column
_CHARACTER = 4.7  # of a bold digit at 8 points, and of a letter on average
_SEPARATION = 6.0  # \tabcolsep on both sides
PREAMBLE = r"""% \usepackage{booktabs}
% \usepackage{siunitx}  % version 3
% \sisetup{mode=text, reset-text-series=false}  % for bold numbers
"""

Mark = Literal["", "best", "second"]


class LatexCell(NamedTuple):
    """A cell of a table.

    Attributes:
        source: LaTeX.
        shown: The text that it shows, for its width.
    """

    source: str
    shown: str


class Column(NamedTuple):
    """A column: its header, its cells, and the column type of its tabular."""

    header: LatexCell
    cells: list[LatexCell]
    kind: str = "l"

    @property
    def width(self) -> float:
        """Estimated width with its separation, in points."""
        return _CHARACTER * max(len(cell.shown) for cell in (self.header, *self.cells)) + _SEPARATION


@dataclass(frozen=True)
class LatexTable:
    """A ``table`` environment.

    Attributes:
        caption: Caption, as LaTeX.
        label: Label, ``tab:`` included.
        columns: All with as many cells.
        groups: First rows of groups, before which there is a little space.
    """

    caption: str
    label: str
    columns: Sequence[Column]
    groups: frozenset[int] = frozenset()

    @property
    def width(self) -> float:
        """Estimated width, in points."""
        return sum(column.width for column in self.columns) - _SEPARATION

    def text(self) -> str:
        """Return the LaTeX source."""
        lines = []
        for number, row in enumerate(zip(*(column.cells for column in self.columns), strict=True)):
            lines += [r"\addlinespace"] if number and number in self.groups else []
            lines.append(" & ".join(cell.source for cell in row) + r" \\")
        return "\n".join(
            [
                r"\begin{table}",
                r"\centering",
                r"\footnotesize",
                r"\setlength{\tabcolsep}{3pt}",
                rf"\caption{{{self.caption}}}",
                rf"\label{{{self.label}}}",
                rf"\begin{{tabular}}{{@{{}}{' '.join(column.kind for column in self.columns)}@{{}}}}",
                r"\toprule",
                " & ".join(f"{{{column.header.source}}}" for column in self.columns) + r" \\",
                r"\midrule",
                *lines,
                r"\bottomrule",
                r"\end{tabular}",
                r"\end{table}",
                "",
            ]
        )


def split_columns(first: Sequence[Column], others: Sequence[Column]) -> list[list[Column]]:
    """Distribute columns over as few tables as fit the width of the text, each with the first columns before them.

    The tables have equally many columns, as far as that is possible.
    """
    left = TEXT_WIDTH + _SEPARATION - sum(column.width for column in first)
    for count in range(1, len(others) + 1):
        size = -(-len(others) // count)
        tables = [others[start : start + size] for start in range(0, len(others), size)]
        if all(sum(column.width for column in table) <= left for table in tables):
            break
    return [[*first, *table] for table in tables]


def text_column(header: str, texts: Sequence[str]) -> Column:
    """Return a column of plain texts."""
    return Column(plain(header), [plain(text) for text in texts])


def plain(text: str) -> LatexCell:
    """Return a cell of plain text."""
    return LatexCell(latex_escape(text), text)


def number_column(
    header: str, numbers: Sequence[str], marks: Sequence[Mark] | None = None, symbols: Sequence[str] | None = None
) -> Column:
    r"""Return a column aligned at the decimal point (siunitx).

    Args:
        header: Header, as plain text.
        numbers: Numbers such as ``0.7210(105)``; other texts are centred.
        marks: ``best`` is bold, ``second`` underlined.
        symbols: A symbol such as ``\dag`` after each number, or nothing.
    """
    marks, symbols = marks or [""] * len(numbers), symbols or [""] * len(numbers)
    cells = [_number(*each) for each in zip(numbers, marks, symbols, strict=True)]
    found = [match for match in map(_NUMBER.fullmatch, numbers) if match]
    sign, whole, decimals, uncertain = (max((len(m[group] or "") for m in found), default=0) for group in range(1, 5))
    form = f"{'+' if sign else ''}{max(whole, 1)}.{max(decimals - 1, 0)}" + (f"({uncertain - 2})" if uncertain else "")
    space = r", table-space-text-post={\textsuperscript{\ddag}}" if any(symbols) else ""
    return Column(plain(header), cells, f"S[table-format={form}{space}]")


_NUMBER = re.compile(r"([+-]?)(\d+)(\.\d+)?(\(\d+\))?")


def _number(text: str, mark: Mark, symbol: str) -> LatexCell:
    raised = rf"\textsuperscript{{{symbol}}}" if symbol else ""
    shown = text + ("+" if symbol else "")
    if not _NUMBER.fullmatch(text):
        return LatexCell(f"{{{latex_escape(text)}{raised}}}", shown)
    if mark == "second":
        return LatexCell(rf"{{\underline{{\num{{{text}}}}}{raised}}}", shown)
    return LatexCell((r"\bfseries " if mark == "best" else "") + text + raised, shown)


def with_uncertainty(values: Sequence[float], digits: int | None = None, *, signed: bool = False) -> str:
    """Return the mean with the standard deviation in units of its last digit: ``0.7210(105)``; ``--`` of no values.

    Args:
        values: Values.
        digits: Decimals; None: as many as `decimals` gives for the mean.
        signed: Whether a positive mean has a sign.
    """
    mean, deviation = mean_and_deviation(values)
    if math.isnan(mean):
        return "--"
    digits = decimals(mean) if digits is None else digits
    text = f"{mean:{'+' if signed else ''}.{digits}f}"
    return text if math.isnan(deviation) else f"{text}({max(round(deviation * 10**digits), 0)})"


_LATEX = {
    "±": r"$\pm$",
    "→": r"$\to$",
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}
_LATEX |= {character: "\\" + character for character in "&%$#_{}"} | {"<": "$<$", ">": "$>$"}


def latex_escape(text: str) -> str:
    """Every special character in its LaTeX form; a minus sign before a number as one."""
    escaped = re.sub(r"[±→\\~^&%$#_{}<>]", lambda match: _LATEX[match.group()], text)
    return re.sub(r"(?<![^\s\[])-(?=\d)", "$-$", escaped)
