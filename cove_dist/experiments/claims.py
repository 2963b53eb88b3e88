"""A grid's claims: each that one quantizer is better than another, by one metric, for one model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cove_dist.evaluation.declarations import higher_is_better
from cove_dist.experiments.grid import GridConfig
from cove_dist.experiments.results import Results
from cove_dist.experiments.statistics import PairedTest, compare, holm
from cove_dist.experiments.text import p_value, percent

Verdict = Literal["holds", "does not hold", "not decided"]


@dataclass(frozen=True)
class Claim:
    """That ``new`` is better than ``old``.

    Attributes:
        measured: The comparison over seeds.
        adjusted: The p-value after Holm's correction over all claims of the split.
        published: The paper's gain in percent, if it has one.
        lower_is_better: Whether lower values of the metric are better.
        significance: The level.
    """

    model: str
    metric: str
    new: str
    old: str
    measured: PairedTest
    adjusted: float
    published: float | None
    lower_is_better: bool
    significance: float

    @property
    def verdict(self) -> Verdict:
        """Whether the claim holds, does not hold, or is not decided.

        It holds if the difference is significant in the claim's direction. It does not if it is significant in the
        other, or if it is not significant and the paper's published gain lies beyond the 95 % interval.
        """
        sign = -1 if self.lower_is_better else 1
        if self.adjusted < self.significance:
            return "holds" if sign * self.measured.gain > 0 else "does not hold"
        return "does not hold" if self.excludes_published else "not decided"

    @property
    def excludes_published(self) -> bool:
        """Whether the published gain is better than every gain in the 95 % interval.

        An interval without width excludes nothing: there the two have the same metrics with every seed, as when the
        quantizer does not act.
        """
        if self.published is None or math.isnan(self.measured.low) or self.measured.low == self.measured.high:
            return False
        if self.lower_is_better:
            return self.published < 100 * self.measured.low
        return self.published > 100 * self.measured.high

    def sentence(self) -> str:
        """Return the claim, the verdict and the numbers as a sentence."""
        what = f"{self.model}, {self.metric}: {self.new} is better than {self.old}"
        measured = self.measured
        if measured.pairs == 0:
            return f"{what}: **not decided**: no seed has both"
        numbers = [percent(100 * measured.gain)]
        if measured.pairs > 1 and math.isnan(measured.p):
            numbers += ["the same difference with every seed, so not tested"]
        elif measured.pairs > 1:
            numbers += [
                f"95 % interval {percent(100 * measured.low)} to {percent(100 * measured.high)}",
                f"p = {p_value(measured.p)}, {p_value(self.adjusted)} by Holm".replace("= <", "<"),
            ]
        numbers += [f"n = {measured.pairs}"]
        if self.published is not None:
            excluded = ", beyond the interval" if self.excludes_published else ""
            numbers += [f"published: {percent(self.published)}{excluded}"]
        return f"{what}: **{self.verdict}**: {'; '.join(numbers)}"


def claims_of(grid: GridConfig, results: Results, split: str) -> list[Claim]:
    """Return every claim of the grid on a split, by model, metric and comparison."""
    pairs = set(grid.pairs())
    named = [
        (model, metric, new, old)
        for model in grid.models
        for metric in grid.metrics
        for new, old in grid.comparisons()
        if {(model, new), (model, old)} <= pairs
    ]
    measured = [
        compare(results.of_seeds(split, model, new, metric), results.of_seeds(split, model, old, metric))
        for model, metric, new, old in named
    ]
    adjusted = holm([comparison.p for comparison in measured])
    return [
        Claim(
            model, metric, new, old, comparison, p,
            published=grid.paper.gain(model, new, old, metric, over_base=old == grid.base),
            lower_is_better=not higher_is_better(metric),
            significance=grid.significance,
        )
        for (model, metric, new, old), comparison, p in zip(named, measured, adjusted, strict=True)
    ]  # fmt: skip


def tally(claims: Sequence[Claim]) -> str:
    """Count the claims of each verdict."""
    verdicts = [claim.verdict for claim in claims]
    kinds: tuple[Verdict, ...] = ("holds", "does not hold", "not decided")
    counts = [f"{verdicts.count(kind)} {kind.replace('holds', 'hold').replace('does', 'do')}" for kind in kinds]
    return f"{len(claims)} claims: {', '.join(counts)}."
