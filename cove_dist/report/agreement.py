"""Codes against known categories: the curves of the paper's Figure 5, their table, and their pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from sklearn.metrics import adjusted_mutual_info_score

from cove_dist.report.categories import Labelled
from cove_dist.report.coverage import area, code_counts, coverage, shuffled_coverage
from cove_dist.report.drawing import GREY, Picture, canvas, label, logarithmic

_LONGEST_NAME = 26  # characters in a legend
_MANY_CODES = 50  # from which the first codes need a logarithmic scale to be seen

_SCHEMA = pa.schema(
    [
        ("entity", pa.string()),
        ("level", pa.int32()),
        ("category_column", pa.string()),
        ("category", pa.string()),
        ("codes_taken", pa.int32()),
        ("covered", pa.float64()),
        ("covered_shuffled_mean", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Agreement:
    """One category column against the codes of one level.

    Shapes: ``C`` categories, the largest ones; ``v`` codes.

    Attributes:
        labelled: The column.
        level: Level, from 1.
        covered: ``[C, v]``, the coverage of each category.
        shuffled, deviation: ``[C, v]``, mean and deviation of the same with shuffled codes.
        mutual_information: Mutual information of codes and categories, adjusted for chance: 0 for unrelated ones, 1 for
            the same partition; None where an id may have several categories.
    """

    labelled: Labelled
    level: int
    covered: np.ndarray
    shuffled: np.ndarray
    deviation: np.ndarray
    mutual_information: float | None

    @property
    def names(self) -> tuple[str, ...]:
        return self.labelled.names[: len(self.covered)]

    def row(self) -> dict[str, str | int | float | None]:
        """Return the row of the page's table."""
        return {
            "entity": self.labelled.entity,
            "category column": self.labelled.column,
            "level": self.level,
            "codes": self.covered.shape[1],
            "categories": len(self.labelled.names),
            "ids": len(self.labelled.codes),
            "adjusted mutual information": self.mutual_information,
            "area under the curves": area(self.covered),
            "area, codes shuffled": area(self.shuffled),
        }

    def curves(self) -> pa.Table:
        """Return a row per category and number of codes."""
        categories, v = self.covered.shape
        rows = categories * v
        columns = [
            [self.labelled.entity] * rows,
            np.full(rows, self.level, dtype=np.int32),
            [self.labelled.column] * rows,
            np.repeat(np.array(self.names, dtype=object), v),
            np.tile(np.arange(1, v + 1, dtype=np.int32), categories),
            self.covered.ravel(),
            self.shuffled.ravel(),
        ]
        return pa.table(columns, schema=_SCHEMA)


def compare(labelled: Labelled, *, top_categories: int, shuffles: int, seed: int) -> list[Agreement]:
    """Compare every level's codes with the categories of one column; curves for the largest ``top_categories``."""
    compared = []
    drawn = labelled.categories < top_categories
    ids, categories = labelled.ids[drawn], labelled.categories[drawn]
    for level, (codes, v) in enumerate(zip(labelled.codes.T, labelled.levels, strict=True), start=1):
        shape = (min(top_categories, len(labelled.names)), v)
        covered = coverage(code_counts(codes, ids, categories, shape))
        chance = shuffled_coverage(codes, ids, categories, shape, shuffles=shuffles, seed=seed)
        shared = None if labelled.several else float(adjusted_mutual_info_score(labelled.categories, codes))
        compared.append(Agreement(labelled, level, covered, *chance, shared))
    return compared


def all_curves(compared: Iterable[Agreement]) -> pa.Table:
    return pa.concat_tables([one.curves() for one in compared])


def draw_coverage(compared: list[Agreement], folder: Path, shuffles: int) -> Picture:
    """Draw the levels of one category column, side by side."""
    labelled = compared[0].labelled
    path = folder / f"coverage_{labelled.entity}_{quote(labelled.column, safe='')}.png"
    with canvas(path, 2, len(compared), width=4.6, height=2.8) as axes:
        drawn = [_draw_level(above, beneath, one) for (above, beneath), one in zip(axes.T, compared, strict=True)]
        names = ["codes shuffled", *map(_short, compared[0].names)]
        axes[0, 0].figure.legend(drawn[0], names, loc="outside right center", title=_short(labelled.column))
    caption = (
        f"As Figure 5 of the paper (section 4.7). For each of the largest categories in {labelled.column}, codes are"
        f" sorted by how many of the category's {labelled.entity}s have them; a point is the share of the category that"
        " its i most used codes cover. Steeper is better. Grey: the same after the codes were shuffled over the"
        f" {labelled.entity}s (mean of {shuffles} shuffles; the band spans the categories), which is what the sizes of"
        " codes and categories give: a small category needs fewer codes. Below: each category's curve less its"
        " own of shuffled codes; codes follow a category whose line is above the band, twice the largest deviation of"
        f" a category over the shuffles. {len(labelled.codes):,} {labelled.entity}s have both codes and a category."
    )
    several = " An id with several categories counts under each." if labelled.several else ""
    return Picture(path, f"{labelled.entity} codes and {labelled.column}", caption + several)


def _draw_level(axes: Axes, beneath: Axes, one: Agreement) -> list[Artist]:
    """Draw the curves and their gain over chance below; return the entries of the legend: the band, then the lines."""
    v = one.covered.shape[1]
    taken = np.arange(1, v + 1)
    band = axes.fill_between(taken, one.shuffled.min(axis=0), one.shuffled.max(axis=0), color=GREY, alpha=0.35)
    lines = axes.plot(taken, one.covered.T)
    label(axes, f"level {one.level}, {v:,} codes", "i, codes taken", "share of the category covered")
    axes.set_ylim(0, 1.03)
    scatter = 2 * one.deviation.max(axis=0)
    beneath.fill_between(taken, -scatter, scatter, color=GREY, alpha=0.35)
    beneath.plot(taken, (one.covered - one.shuffled).T)
    label(beneath, "", "i, codes taken", "share less that of shuffled codes")
    if v >= _MANY_CODES:
        logarithmic(axes, "x")
        logarithmic(beneath, "x")
    return [band, *lines]


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
