"""The tables of a grid for a paper: means with the best in bold, gains by metric, and gains by frequency."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import product

from cove_dist.evaluation.declarations import higher_is_better, is_metric
from cove_dist.evaluation.frequency import GROUPS
from cove_dist.experiments.claims import Claim, correction
from cove_dist.experiments.grid import GridConfig
from cove_dist.experiments.latex import (
    Column,
    LatexTable,
    Mark,
    latex_escape,
    number_column,
    split_columns,
    text_column,
    with_uncertainty,
)
from cove_dist.experiments.names import Names
from cove_dist.experiments.results import Results, seeds_of_both
from cove_dist.experiments.statistics import mean_and_deviation
from cove_dist.experiments.text import decimals, p_value

_BETTER, _WORSE = r"\dag", r"\ddag"
_DEVIATION = "in parentheses the standard deviation, in units of the last digit"


def paper_tables(
    grid: GridConfig, results: Results, claims: Sequence[Claim], split: str, *, finished: bool
) -> list[LatexTable]:
    """Return the tables of a split, each no wider than a column of text.

    Args:
        grid: Grid.
        results: Results of its finished cells.
        claims: Claims of the split.
        split: Split.
        finished: Whether all cells are finished.
    """
    names, corrected = Names.of(grid), correction(claims, finished=finished)
    tables = _means(grid, results, claims, corrected, split, names)
    for metric in grid.metrics:
        if of_metric := [claim for claim in claims if claim.metric == metric]:
            tables += _gains(grid, of_metric, corrected, split, names)
    for metric, entity in product(grid.by_frequency if claims else (), ("user", "item")):
        tables += _frequency(grid, results, split, metric, entity, names)
    return tables


def _fitting(
    caption: str, parts: Sequence[str], first: Sequence[Column], columns: Sequence[Column], groups: frozenset[int]
) -> list[LatexTable]:
    """Return one table, or several where one would be too wide, labelled by parts and number."""
    label = "tab:" + "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts)
    tables = split_columns(first, columns)
    numbers = [""] if len(tables) == 1 else [f"-{number}" for number in range(1, len(tables) + 1)]
    return [LatexTable(caption, label + number, table, groups) for number, table in zip(numbers, tables, strict=True)]


def _means(
    grid: GridConfig, results: Results, claims: Sequence[Claim], corrected: str, split: str, names: Names
) -> list[LatexTable]:
    pairs = grid.pairs()
    first = [
        text_column("Model", _without_repeats([names.model(model) for model, _ in pairs])),
        text_column("Codes", [names.quantizer(quantizer) for _, quantizer in pairs]),
    ]
    columns, fewest = [], [len(grid.seeds)] * len(pairs)
    for metric in grid.metrics:
        values = [list(results.of_seeds(split, *pair, metric).values()) for pair in pairs]
        fewest = [min(count, len(of_pair)) for count, of_pair in zip(fewest, values, strict=True)]
        whole = [of_pair if len(of_pair) == len(grid.seeds) else [] for of_pair in values]
        symbols = [_symbol(claims, grid, *pair, metric) for pair in pairs]
        texts = [with_uncertainty(of_pair) for of_pair in values]
        columns.append(number_column(names.metric(metric), texts, marks(metric, whole), symbols))
    caption = (
        f"{grid.title}, {split} split: mean over seeds {', '.join(map(str, grid.seeds))}; {_DEVIATION}. Best in bold,"
        " second underlined."
    )
    if few := [number for number, count in enumerate(fewest) if count < len(grid.seeds)]:
        parts = [f"{names.model(pairs[n][0])} {names.quantizer(pairs[n][1])} {fewest[n]}" for n in few]
        caption += f" Of fewer than {len(grid.seeds)} seeds, and not marked: {', '.join(parts)}."
    significance = (
        rf" {_symbols(_BETTER)} better, {_symbols(_WORSE)} worse than {latex_escape(names.quantizer(grid.base))} for"
        rf" the same model: paired $t$-test over seeds, significant at {grid.significance:g} after {corrected}."
    )
    groups = _groups([model for model, _ in pairs])
    caption = latex_escape(caption) + (significance if claims else "")
    return _fitting(caption, (grid.title, split), first, columns, groups)


def marks(metric: str, values: Sequence[Sequence[float]]) -> list[Mark]:
    """Return ``best`` for the best mean and ``second`` for the next one; equal means share a mark.

    Values without a direction, and a single row, have no marks.
    """
    means = [mean_and_deviation(of_row)[0] for of_row in values]
    known = sorted({mean for mean in means if not math.isnan(mean)})
    if not is_metric(metric) or len(known) < 2:
        return [""] * len(means)
    best, second = (known[-1], known[-2]) if higher_is_better(metric) else known[:2]
    return ["best" if mean == best else "second" if mean == second else "" for mean in means]


def _symbol(claims: Sequence[Claim], grid: GridConfig, model: str, quantizer: str, metric: str) -> str:
    """Return the symbol of a significant difference from the base; nothing if there is none."""
    for claim in claims:
        if (claim.model, claim.new, claim.old, claim.metric) != (model, quantizer, grid.base, metric):
            continue
        if claim.adjusted < claim.significance:
            return _BETTER if (claim.measured.gain > 0) != claim.lower_is_better else _WORSE
    return ""


def _symbols(symbol: str) -> str:
    return rf"\textsuperscript{{{symbol}}}"


def _gains(grid: GridConfig, claims: Sequence[Claim], corrected: str, split: str, names: Names) -> list[LatexTable]:
    """Return a row a model and comparison of one metric."""
    metric = claims[0].metric
    first = [text_column("Model", _without_repeats([names.model(claim.model) for claim in claims]))]
    if len({(claim.new, claim.old) for claim in claims}) > 1:
        compared = [f"{names.quantizer(claim.new)} / {names.quantizer(claim.old)}" for claim in claims]
        first.append(text_column("Compared", compared))
    columns = [number_column("Gain, %", [_percent(100 * claim.measured.gain) for claim in claims])]
    columns.append(text_column("95 % interval", [_interval(claim) for claim in claims]))
    columns.append(number_column("p (Holm)", [_p(claim.adjusted) for claim in claims]))
    published = any(claim.published is not None for claim in claims)
    if published:
        columns.append(number_column("Published, %", [_percent(claim.published) for claim in claims]))
    verdicts = [claim.verdict.removesuffix(" than published") for claim in claims]
    columns.append(text_column("Verdict", verdicts))
    pairs = sorted({claim.measured.pairs for claim in claims})
    caption = (
        f"{grid.title}, {split} split: relative gains in {names.metric(metric)}, paired over"
        f" {' to '.join(str(n) for n in dict.fromkeys((pairs[0], pairs[-1])))} seeds, with the 95 % interval of the"
        f" paired t-test; p after {corrected}."
    )
    if published and not grid.paper.same_data:
        caption += f" Published values ({grid.paper.source}) are not of the data used here and decide nothing."
    if "smaller" in verdicts:
        caption += " Smaller: than published."
    groups = _groups([claim.model for claim in claims])
    return _fitting(latex_escape(caption), (grid.title, split, "gains", metric), first, columns, groups)


def _frequency(
    grid: GridConfig, results: Results, split: str, metric: str, entity: str, names: Names
) -> list[LatexTable]:
    """Return the base's means, and the differences to them, by the frequency of users or items in training."""
    compared = [
        (model, new, old)
        for model in dict.fromkeys(model for model, _ in grid.pairs())
        for new, old in grid.comparisons()
        if {(model, new), (model, old)} <= set(grid.pairs())
    ]
    labels, rows, few = [], [], []
    for model, new, old in compared:
        by_group = [
            [results.of_seeds(split, model, quantizer, f"{metric}/{entity}_{group}") for quantizer in (old, new)]
            for group in GROUPS
        ]
        labels += [names.quantizer(old), f"{names.quantizer(new)} - {names.quantizer(old)}"]
        shared = [(base, after, seeds_of_both(base, after)) for base, after in by_group]
        rows.append([with_uncertainty([base[seed] for seed in seeds]) for base, _, seeds in shared])
        differences = [[after[seed] - base[seed] for seed in seeds] for base, after, seeds in shared]
        digits = [decimals(mean_and_deviation([base[seed] for seed in seeds])[0]) for base, _, seeds in shared]
        rows.append([with_uncertainty(*of_group, signed=True) for of_group in zip(differences, digits, strict=True)])
        fewest = min((len(of_group) for of_group in differences if of_group), default=len(grid.seeds))
        few += [f"{names.model(model)} {labels[-1]} {fewest}"] if fewest < len(grid.seeds) else []
    models = [names.model(model) for model, *_ in compared for _ in range(2)]
    first = [text_column("Model", _without_repeats(models)), text_column("Codes", labels)]
    columns = [number_column(group, [row[place] for row in rows]) for place, group in enumerate(GROUPS)]
    caption = (
        f"{grid.title}, {split} split: {names.metric(metric)} by how often the {entity} occurs in training, q1 the"
        f" rarest quarter, over the seeds of both; {_DEVIATION}."
    )
    if few:
        caption += f" Of fewer than {len(grid.seeds)} seeds in some group: {', '.join(few)}."
    parts = (grid.title, split, metric, entity)
    return _fitting(latex_escape(caption), parts, first, columns, _groups(models))


def _without_repeats(names: Sequence[str]) -> list[str]:
    """Return the names, with nothing in place of one that is that of the row above."""
    return [name if number == 0 or name != names[number - 1] else "" for number, name in enumerate(names)]


def _groups(names: Sequence[str]) -> frozenset[int]:
    return frozenset(number for number in range(1, len(names)) if names[number] != names[number - 1])


def _percent(value: float | None) -> str:
    return "--" if value is None or not math.isfinite(value) else f"{value:+.2f}"


def _interval(claim: Claim) -> str:
    if math.isnan(claim.measured.low):
        return "--"
    return f"[{100 * claim.measured.low:.2f}, {100 * claim.measured.high:.2f}]"


def _p(value: float) -> str:
    return "--" if math.isnan(value) else p_value(value)
