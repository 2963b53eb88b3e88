"""One style for all pictures: matplotlib without global state, in colours that colour-blind readers can distinguish."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, MaxNLocator

from data_pipeline.files import replaced_file

# Six colours of M. Okabe and K. Ito, "Color Universal Design"; the seventh line on has the same ones, dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
GREY = "#777777"
_STYLE: Any = {  # the stubs of matplotlib list every key of rcParams
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.prop_cycle": cycler(linestyle=["-", "--", ":"]) * cycler(color=COLOURS),
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 1.5,
    "legend.columnspacing": 1.2,
    "text.parse_math": False,  # a category may hold a dollar sign
    "figure.dpi": 150,
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
    "svg.hashsalt": "cove_dist",  # equal pictures are equal files
}
_UNDATED: dict[str, Any] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


@dataclass(frozen=True)
class Picture:
    """A PNG file with its words for the page; the same as PDF and SVG lie beside it."""

    path: Path
    title: str
    caption: str


@contextmanager
def canvas(
    path: Path, rows: int, columns: int, *, width: float = 4.4, height: float = 2.7, share_y: bool = False
) -> Iterator[np.ndarray]:
    """Yield axes ``[rows, columns]`` to draw on; save them at the end as PNG, and beside it as PDF and SVG for papers.

    Args:
        path: the PNG file.
        rows, columns: of panels.
        width, height: of a panel, in inches.
        share_y: Whether the panels of a row share the vertical axis, labelled once.
    """
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        yield figure.subplots(rows, columns, squeeze=False, sharey="row" if share_y else False)
        figure.draw_without_rendering()
        figure.set_layout_engine(None)  # the layout is found: each format would find it again, which takes longest
        for kind, metadata in {path.suffix[1:]: None, **_UNDATED}.items():
            with replaced_file(path.with_suffix(f".{kind}")) as file:
                figure.savefig(file, format=kind, metadata=metadata)


def label(axes: Axes, title: str, x: str, y: str) -> None:
    """Set the title and axis labels; use few whole numbers along x, so that they do not overlap."""
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.0f}")


def from_zero(axes: Axes) -> None:
    """Start the scale at 0; use whole numbers with thousands separators."""
    axes.set_ylim(0, 1.1 * axes.dataLim.y1)
    axes.yaxis.set_major_formatter("{x:,.0f}")


def logarithmic(axes: Axes, which: Literal["x", "y"]) -> None:
    """Set a logarithmic scale with plain numbers."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_formatter(_PlainLogFormatter())
    axis.set_minor_formatter(_PlainLogFormatter(labelOnlyBase=False))


class _PlainLogFormatter(LogFormatter):
    """Labels the same ticks, without powers of ten."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:,.10g}" if super().__call__(x, pos) else ""
