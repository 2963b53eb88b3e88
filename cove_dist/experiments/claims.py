"""A grid's claims: each that one quantizer is better than another, by one metric, for one model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from cove_dist.evaluation.declarations import higher_is_better
from cove_dist.experiments.grid import GridConfig
from cove_dist.experiments.results import Results
from cove_dist.experiments.statistics import PairedTest, compare, holm, p_of_gain
from cove_dist.experiments.text import p_value, percent

Verdict = Literal["holds", "smaller than published", "does not hold", "not decided"]
_PLURAL: dict[Verdict, str] = {
    "holds": "hold",
    "smaller than published": "smaller than published",
    "does not hold": "do not hold",
    "not decided": "not decided",
}


@dataclass(frozen=True)
class Claim:
    """That ``new`` is better than ``old``.

    Attributes:
        measured: The comparison over seeds.
        adjusted: The p-value after Holm's correction over all claims of the split.
        published: The paper's gain in percent, if it has one.
        adjusted_published: The p-value of a difference from the published gain, after Holm's correction over all claims
            of the split that are tested so; nan where none is published, or where it is of other data.
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
    adjusted_published: float
    lower_is_better: bool
    significance: float

    @property
    def verdict(self) -> Verdict:
        """Whether the claim holds, does not hold, or is not decided; every test is corrected.

        It holds if the difference is significant in the claim's direction. It does not if it is significant in the
        other, or if it is not significant and significantly less than the published gain of the same data; where the
        95 % interval lies above 0 then, it is smaller than published.
        """
        if self.adjusted < self.significance:
            return "holds" if self._sign * self.measured.gain > 0 else "does not hold"
        if not self.excludes_published:
            return "not decided"
        worst = min(self._sign * self.measured.low, self._sign * self.measured.high)
        return "smaller than published" if worst > 0 else "does not hold"

    @property
    def excludes_published(self) -> bool:
        """Whether the measured gain is significantly less than the published one, which is of the same data."""
        less = self.published is not None and self._sign * (self.published - 100 * self.measured.gain) > 0
        return less and self.adjusted_published < self.significance

    @property
    def _sign(self) -> int:
        return -1 if self.lower_is_better else 1

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
            numbers += [f"published: {percent(self.published)}{self._against_published()}"]
        return f"{what}: **{self.verdict}**: {'; '.join(numbers)}"

    def _against_published(self) -> str:
        if math.isnan(self.adjusted_published):
            return ""
        return f", p of that gain = {p_value(self.adjusted_published)} by Holm".replace("= <", "<")


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
    values = [
        (results.of_seeds(split, model, new, metric), results.of_seeds(split, model, old, metric))
        for model, metric, new, old in named
    ]
    published = [
        grid.paper.gain(model, new, old, metric, over_base=old == grid.base) for model, metric, new, old in named
    ]
    measured = [compare(*of_both) for of_both in values]
    decides = grid.paper.same_data
    against = [
        p_of_gain(*of_both, gain / 100) if decides and gain is not None else math.nan
        for of_both, gain in zip(values, published, strict=True)
    ]
    adjusted, adjusted_published = holm([comparison.p for comparison in measured]), holm(against)
    return [
        Claim(
            *name, comparison, p, gain, p_gain,
            lower_is_better=not higher_is_better(name[1]), significance=grid.significance,
        )
        for name, comparison, p, gain, p_gain in zip(
            named, measured, adjusted, published, adjusted_published, strict=True
        )
    ]  # fmt: skip


def correction(claims: Sequence[Claim], *, finished: bool) -> str:
    """Return over how many comparisons Holm's correction is, in words; what cannot be tested is not counted.

    Args:
        claims: Claims of a split.
        finished: Whether all cells of the grid are finished.
    """
    tested = sum(not math.isnan(claim.adjusted) for claim in claims)
    words = f"Holm's correction over the {tested} comparisons that could be tested"
    return words if finished else f"{words}; not all cells are finished, so p will change"


def tally(claims: Sequence[Claim]) -> str:
    """Count the claims of each verdict; ``smaller than published`` only where there are some."""
    verdicts = [claim.verdict for claim in claims]
    kinds = [kind for kind in get_args(Verdict) if kind != "smaller than published" or kind in verdicts]
    counts = [f"{verdicts.count(kind)} {_PLURAL[kind]}" for kind in kinds]
    return f"{len(claims)} claims: {', '.join(counts)}."
