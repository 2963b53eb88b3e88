"""The claims of the paper in one table: published gain, measured gain, verdict."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cove_dist.config.base import settings
from cove_dist.config.composition import load_settings
from cove_dist.errors import ConfigError
from cove_dist.experiments.claims import Claim, claims_of, tally
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import GridConfig, load_grid
from cove_dist.experiments.results import RESULTS_FILE, SCHEMA, Results
from cove_dist.experiments.statistics import interval_of_mean
from cove_dist.experiments.text import TextTable, percent, write_between_markers
from cove_dist.types import PositiveInt, Text

BEGIN, END = "<!-- claims: made by cove paper -->", "<!-- end of claims -->"
TITLE = "Every claim of the paper"
HEADER = ("paper", "claim", "data here", "published", "here (95 % interval)", "seeds", "verdict")
NEARLY_ALL = 0.95
_NOT_MEASURED = "not measured"
_NOTE = (
    "Made by `cove paper` from the results below. Gains are relative, over paired seeds. A gain *holds* if"
    " it is significant at 0.05 after Holm's correction over all comparisons of its grid; it *does not hold* if a loss"
    " is, or if no gain is found and ours is significantly less than the published one, by the same test of that gain"
    " with the correction over those of its grid; it is *smaller than published* if its interval lies above 0 then;"
    " else it is *not decided*. Models of Tables 2 to 4 were searched by as many trials with COVE as without it; the"
    " categories of Table 2, the levels of Table 5, and the variants of Figures 3 and 4 were not searched, and have the"
    " settings that their tables name."
)

Row = tuple[str, ...]


@settings
class GainClaim:
    """That quantizers of a grid are better than others.

    Attributes:
        paper: The table or figure.
        claim: Claim about every model, in words.
        data: Data set of the grid.
        grid: A shipped grid, or a path of one; its results are in the folder of the same name.
        metric: Metric of the row.
        compared: Pairs of quantizers, the better one first.
        published: Published result in words, if the grid has no published gain.
        models: Models, a row each; all of the grid if none is named.
    """

    paper: Text
    claim: Text
    data: Text
    grid: Text
    metric: Text
    compared: tuple[tuple[str, str], ...]
    published: str = "a picture"
    models: tuple[str, ...] | None = None


@settings
class CoverageClaim:
    """That the codes which cover most of a category cover nearly all of it.

    Attributes:
        paper, claim, data: As in `GainClaim`.
        curves: A folder with the curves of reports (see `cove_dist.report.agreement`), ``<model>.parquet`` or, of
            several seeds, ``<model>_<seed>.parquet``.
        published: By model, the published number of codes that cover nearly all of a category.
        column: Column of the categories.
        categories: Over which the mean is taken; all that the report has if none is named.
    """

    paper: Text
    claim: Text
    data: Text
    curves: Text
    published: dict[str, PositiveInt]
    column: Text
    categories: tuple[str, ...] = ()


@settings
class PaperTableConfig:
    folder: Text
    readme: Text | None
    split: Literal["validation", "test"]
    gains: tuple[GainClaim, ...]
    coverage: tuple[CoverageClaim, ...]


def paper_table(overrides: Sequence[str]) -> TextTable:
    """Return the table of ``configs/paper.yaml``; write it into the README that the settings name.

    Raises:
        ConfigError: A wrong setting; no such folder; a grid that lacks the metric or comparison of a claim; curves
            without the categories of a claim; a README without the markers.
    """
    config = load_settings(PaperTableConfig, "paper", overrides)
    folder = Path(config.folder)
    if not folder.is_dir():
        raise ConfigError(f"folder = {folder}: no such folder; give the folder that holds the results of the grids")
    measured = {name: _measured(name, folder, config.split) for name in dict.fromkeys(c.grid for c in config.gains)}
    rows = [row for claim in config.gains for row in gain_rows(claim, *measured[claim.grid])]
    rows += [row for coverage in config.coverage for row in coverage_rows(coverage, folder)]
    notes = (_NOTE, *_of_other_data([grid for grid, _ in measured.values()]), _counted(rows))
    table = TextTable(TITLE, HEADER, tuple(rows), notes)
    if config.readme is not None:
        tallies = "".join(_tally(name, claims) for name, (_, claims) in measured.items())
        write_between_markers(Path(config.readme), BEGIN, END, "\n".join([table.markdown(), tallies]))
    return table


def _measured(name: str, folder: Path, split: str) -> tuple[GridConfig, list[Claim]]:
    """Return a grid, and all its claims with what was measured; where the grid was not run, nothing was."""
    grid = load_grid(file_arguments("grid", [name]))
    path = folder / Path(name).stem / RESULTS_FILE
    results = Results.of(pq.read_table(path) if path.is_file() else SCHEMA.empty_table())
    return grid, claims_of(grid, results, split)


def _of_other_data(grids: Sequence[GridConfig]) -> list[str]:
    """Return a note on the published values that are of other data than the runs'; nothing if there are none."""
    sources = [f"{grid.paper.source} ({grid.title})" for grid in grids if not grid.paper.same_data]
    if not sources:
        return []
    return [f"Published gains of other data than ours decide nothing. They are those of {'; '.join(sources)}."]


def _tally(name: str, claims: Sequence[Claim]) -> str:
    made = [claim for claim in claims if claim.measured.pairs]
    return f"- `{name}`, all metrics and comparisons: {tally(made)}\n" if made else ""


def _counted(rows: Sequence[Row]) -> str:
    counts = Counter(row[-1] for row in rows)
    found = "; ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items()))
    return f"Rows by verdict: {found}."


def gain_rows(claim: GainClaim, grid: GridConfig, measured: Sequence[Claim]) -> list[Row]:
    """Return a row per model and pair of quantizers that are compared."""
    known = {(each.model, each.new, each.old): each for each in measured if each.metric == claim.metric}
    models = claim.models or tuple(dict.fromkeys(each.model for each in measured))
    wanted = [(model, *pair) for model in models for pair in claim.compared]
    found = [key for key in wanted if key in known]
    if not found or {(new, old) for _, new, old in found} != set(claim.compared):
        raise ConfigError(
            f"{claim.paper}, {claim.claim}: grid {claim.grid} compares no {claim.metric} of {list(claim.compared)};"
            f" it has the metrics {', '.join(grid.metrics)} and the comparisons {grid.comparisons()}"
        )
    return [_gain_row(claim, known[key], same_data=grid.paper.same_data) for key in found]


def _gain_row(claim: GainClaim, measured: Claim, *, same_data: bool) -> Row:
    published = claim.published
    if measured.published is not None:
        published = percent(measured.published) + ("" if same_data else ", of other data")
    words = f"{claim.claim}: {measured.model}, {measured.metric}"
    begin = (claim.paper, words, claim.data, published)
    ours = measured.measured
    if ours.pairs == 0:
        return *begin, "", "", _NOT_MEASURED
    interval = "" if math.isnan(ours.low) else f" ({100 * ours.low:+.2f} to {100 * ours.high:+.2f})"
    return *begin, percent(100 * ours.gain) + interval, str(ours.pairs), measured.verdict


def coverage_rows(claim: CoverageClaim, folder: Path) -> list[Row]:
    """Return a row per model: the share of the categories that the codes cover, and that of shuffled codes."""
    rows: list[Row] = []
    for model, count in claim.published.items():
        begin = (claim.paper, f"{claim.claim}: {model}", claim.data, f"nearly 100 % by {count} codes")
        paths = [*(folder / claim.curves).glob(f"{model}.parquet"), *(folder / claim.curves).glob(f"{model}_*.parquet")]
        if not paths:
            rows.append((*begin, "", "", _NOT_MEASURED))
            continue
        covered, shuffled = zip(*(_covered(claim, path, count) for path in paths), strict=True)
        mean, chance = float(np.mean(covered)), float(np.mean(shuffled))
        low, high = interval_of_mean(covered)
        interval = f" ({100 * low:.0f} to {100 * high:.0f})" if len(paths) > 1 else ""
        ours = f"{100 * mean:.0f} %{interval}; shuffled codes {100 * chance:.0f} %"
        rows.append((*begin, ours, str(len(paths)), _coverage_verdict(mean, chance)))
    return rows


def _covered(claim: CoverageClaim, path: Path, count: int) -> tuple[float, float]:
    """Return the mean over the categories of what ``count`` codes of the first level cover, and shuffled codes."""
    curves = pq.read_table(path)
    wanted = {"entity": "item", "level": 1, "category_column": claim.column, "codes_taken": count}
    for column, value in wanted.items():
        curves = curves.filter(pc.equal(curves[column], value))
    found = curves["category"].to_pylist()
    if missing := [name for name in claim.categories if name not in found]:
        raise ConfigError(
            f"{path}: no curve of {', '.join(missing)} in {claim.column}; make it with more top_categories"
        )
    if claim.categories:
        curves = curves.filter(pc.is_in(curves["category"], pa.array(claim.categories)))
    covered, shuffled = (float(pc.mean(curves[name]).as_py()) for name in ("covered", "covered_shuffled_mean"))
    return covered, shuffled


def _coverage_verdict(covered: float, shuffled: float) -> str:
    if covered < NEARLY_ALL:
        return "does not hold"
    return "holds, by chance alone" if shuffled >= NEARLY_ALL else "holds"
