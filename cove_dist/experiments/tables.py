"""The tables of a grid as Markdown: means, comparisons next to published values, and claims.

Those for a paper are made by `cove_dist.experiments.paper_tables`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from cove_dist.evaluation.frequency import GROUPS
from cove_dist.experiments.cells import failure, state
from cove_dist.experiments.claims import Claim, claims_of, correction, tally
from cove_dist.experiments.grid import Cell, GridConfig, tuning_note
from cove_dist.experiments.latex import PREAMBLE
from cove_dist.experiments.paper_tables import paper_tables
from cove_dist.experiments.results import Results, seeds_of_both
from cove_dist.experiments.statistics import mean_and_deviation
from cove_dist.experiments.text import (
    MISSING,
    TextTable,
    decimals,
    mean_and_deviation_text,
    number,
    p_value,
    percent,
)
from cove_dist.report.drawing import Picture
from data_pipeline.files import replaced_file

MARKDOWN_FILE, LATEX_FILE = "tables.md", "tables.tex"


def means_table(grid: GridConfig, cells: Sequence[Cell], results: Results, split: str) -> TextTable:
    """Return a row a model and quantizer, a column a metric; the runs that failed, as diverged ones do, are counted.

    Notes name what the runs do not have in common, such as the metric that chose their best checkpoints.
    """
    rows, measured = [], set()
    failed = Counter((cell.model, cell.quantizer) for cell in cells if state(cell, grid) == "failed")
    for model, quantizer in grid.pairs():
        by_metric = [results.of_seeds(split, model, quantizer, metric) for metric in grid.metrics]
        measured |= {metric for metric, values in zip(grid.metrics, by_metric, strict=True) if values}
        count = failed[model, quantizer]
        most = max(map(len, by_metric))
        runs = f"{most} of {len(grid.seeds)}" + (f", {count} failed" if count else "")
        absent = "failed" if count == len(grid.seeds) else MISSING
        means = [_of_runs(list(v.values()), most) if v else absent for v in by_metric]
        rows.append((model, quantizer, *means, runs))
    seeds = ", ".join(map(str, grid.seeds))
    notes = [f"Mean ± standard deviation over seeds {seeds}, of the {grid.checkpoint} checkpoints."]
    if measured and (never := [metric for metric in grid.metrics if metric not in measured]):
        notes.append(
            f"No run has {', '.join(never)}: neither the task nor evaluation.metrics gives it, or not at this k."
        )
    header = ("model", "quantizer", *grid.metrics, "runs")
    protocol, differences = results.described.get(split, (f"{split} split", []))
    return TextTable(f"{grid.title}: {protocol}", header, tuple(rows), (*notes, *differences))


def _of_runs(values: Sequence[float], most: int) -> str:
    """Return mean and deviation of a metric; of how many runs, if it was undefined in some."""
    return mean_and_deviation_text(values) + (f" (of {len(values)})" if len(values) < most else "")


def comparison_table(grid: GridConfig, claims: Sequence[Claim], split: str, *, finished: bool) -> TextTable:
    """Build a table with a row per claim: gain, interval and p-values; the paper's values and gain if published.

    Args:
        grid, claims, split: The grid, and its claims of a split.
        finished: Whether all cells are finished.
    """
    source = grid.paper.source or "paper"
    published = any(claim.published is not None for claim in claims)
    header: tuple[str, ...] = ("model", "metric", "compared", "gain", "95 % interval", "n", "p", "p (Holm)")
    header += (source, f"{source}: gain") if published else ()
    header += ("p of that gain (Holm)",) if published and grid.paper.same_data else ()
    rows = []
    for claim in claims:
        ours = claim.measured
        interval = "-" if math.isnan(ours.low) else f"{percent(100 * ours.low)} to {percent(100 * ours.high)}"
        compared = f"{claim.new} / {claim.old}"
        row: tuple[str, ...] = (claim.model, claim.metric, compared, percent(100 * ours.gain), interval)
        row += (str(ours.pairs), p_value(ours.p), p_value(claim.adjusted))
        if published:
            values = [grid.paper.value(claim.model, name, claim.metric) for name in (claim.old, claim.new)]
            shown = "-" if None in values else " → ".join(number(v) for v in values if v is not None)
            row += (shown, "-" if claim.published is None else percent(claim.published))
        if published and grid.paper.same_data:
            row += ("-" if claim.published is None else p_value(claim.adjusted_published),)
        rows.append((*row, claim.verdict))
    notes = (
        "Gains are relative to the mean of the second, over the n seeds that both have. p: two-sided paired t-test over"
        f" these seeds; with {correction(claims, finished=finished)}. A gain holds if significant at"
        f" {grid.significance:g}; it does not hold if a loss is{_role_of_published(grid, claims)}.",
    )
    return TextTable(f"{grid.title}: gains on the {split} split", (*header, "verdict"), tuple(rows), notes)


def _role_of_published(grid: GridConfig, claims: Sequence[Claim]) -> str:
    """Return how published gains decide, or that they do not, as the end of a sentence."""
    if all(claim.published is None for claim in claims):
        return ""
    if not grid.paper.same_data:
        return f". Published values ({grid.paper.source}) are not of the data used here and decide nothing"
    published = sum(not math.isnan(claim.adjusted_published) for claim in claims)
    return (
        ", or if no gain is found and ours is significantly less than the published one, by the same test of that gain"
        f" with the correction over the {published} of them; it is smaller than published if its interval lies above 0"
        " then"
    )


def frequency_table(grid: GridConfig, results: Results, split: str, metric: str) -> TextTable:
    """Build a table with a row per model, comparison and entity, a column per group of ids: base's mean, difference."""
    models = list(dict.fromkeys(model for model, _ in grid.pairs()))
    rows = []
    for model, (new, old), entity in product(models, grid.comparisons(), ("user", "item")):
        if not {(model, new), (model, old)} <= set(grid.pairs()):
            continue
        names = [f"{metric}/{entity}_{group}" for group in GROUPS]
        pairs = [tuple(results.of_seeds(split, model, quantizer, name) for quantizer in (old, new)) for name in names]
        most = max(len(seeds_of_both(base, other)) for base, other in pairs)
        rows.append((model, f"{new} / {old}", entity, *(_difference(base, other, most) for base, other in pairs)))
    note = (
        f"Mean {metric} of the second, and mean difference ± standard deviation of the first over the seeds of both, on"
        " the rows whose user, or item, is in a group: a quarter of the ids each, q1 the rarest in training, and"
        " those that never occur there."
    )
    header = ("model", "compared", "by", *GROUPS)
    return TextTable(
        f"{grid.title}: {metric} on the {split} split, by frequency in training", header, tuple(rows), (note,)
    )


def _difference(old: Mapping[int, float], new: Mapping[int, float], most: int) -> str:
    seeds = seeds_of_both(old, new)
    if not seeds:
        return MISSING
    mean, deviation = mean_and_deviation([new[seed] - old[seed] for seed in seeds])
    base, _ = mean_and_deviation([old[seed] for seed in seeds])
    digits = decimals(base)
    spread = "" if math.isnan(deviation) else f" ± {deviation:.{digits}f}"
    spread += f" (of {len(seeds)})" if len(seeds) < most else ""
    return f"{base:.{digits}f}, {mean:+.{digits}f}{spread}"


def write_tables(
    grid: GridConfig, cells: Sequence[Cell], results: Results, pictures: Sequence[Picture], folder: Path, command: str
) -> None:
    """Write ``tables.md``, which shows the pictures too, and ``tables.tex``, of whatever cells are finished."""
    markdown = [f"# {grid.title}\n", f"Made by `{command}`. {tuning_note(grid)}\n"]
    latex = [f"% {grid.title}. Made by: {command}\n{PREAMBLE}"]
    absent = unfinished(cells, grid, results)
    for split in grid.splits:
        claims = claims_of(grid, results, split)
        tables = [means_table(grid, cells, results, split)]
        if claims:
            tables.append(comparison_table(grid, claims, split, finished=not absent))
            tables += [frequency_table(grid, results, split, metric) for metric in grid.by_frequency]
        markdown += [table.markdown() for table in tables]
        latex += [table.text() for table in paper_tables(grid, results, claims, split, finished=not absent)]
        if claims:
            lines = "\n".join(f"- {claim.sentence()}." for claim in claims)
            markdown.append(f"## Claims, {split} split\n\n{tally(claims)}\n\n{lines}\n")
    markdown += [f"![{picture.title}]({picture.path.name})\n\n{picture.caption}\n" for picture in pictures]
    markdown.append(absent)
    for name, parts in ((MARKDOWN_FILE, filter(None, markdown)), (LATEX_FILE, latex)):
        with replaced_file(folder / name) as file:
            file.write_text("\n".join(parts))


def unfinished(cells: Sequence[Cell], grid: GridConfig, results: Results) -> str:
    """Describe the cells that the tables lack, with their state; empty if there are none."""
    states = [(cell, state(cell, grid)) for cell in cells if not results.has(cell)]
    lines = [f"- {cell.name}: {_condition(cell, word)}" for cell, word in states if word != "finished"]
    if not lines:
        return ""
    return f"## Not in these tables\n\n{len(lines)} of {len(cells)} cells:\n\n" + "\n".join(lines) + "\n"


def _condition(cell: Cell, state: str) -> str:
    return f"failed: {failure(cell)}" if state == "failed" else state
