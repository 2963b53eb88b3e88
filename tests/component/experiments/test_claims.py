"""Claims: their tests, corrections and verdicts, and what tables say of them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cove_dist.experiments.claims import Claim, claims_of, tally
from cove_dist.experiments.grid import GridConfig, cells_of
from cove_dist.experiments.paper_tables import paper_tables
from cove_dist.experiments.program import write_everything
from cove_dist.experiments.results import Results
from cove_dist.experiments.statistics import PairedTest
from cove_dist.experiments.tables import comparison_table
from tests.component.experiments.grids import AUC, made, small_grid


def test_claims_carry_the_tests_corrected_over_the_table(tmp_path: Path) -> None:
    grid, results = made(tmp_path)
    claims = claims_of(grid, results, "test")
    assert [(claim.model, claim.metric) for claim in claims] == [
        ("deepfm", "auc"), ("deepfm", "logloss"), ("dlrm", "auc"), ("dlrm", "logloss"),
    ]  # fmt: skip
    p = stats.ttest_rel(AUC["deepfm/cove"], AUC["deepfm/none"]).pvalue
    assert claims[0].measured.p == pytest.approx(p)
    assert claims[0].adjusted == pytest.approx(2 * p)
    assert [claim.verdict for claim in claims] == ["holds", "holds", "not decided", "not decided"]
    assert claims[0].measured.gain > 0 > claims[1].measured.gain, "less log loss is better"
    assert claims[2].measured.pairs == 1
    assert tally(claims) == "4 claims: 2 hold, 0 do not hold, 2 not decided."
    gains = [claim.published for claim in claims]
    assert gains == [19.5, None, None, None]


def test_the_papers_gain_comes_from_its_values_where_it_prints_none(tmp_path: Path) -> None:
    grid, _ = made(tmp_path, "~paper.gains")
    assert grid.paper.gain("deepfm", "cove", "none", "auc", over_base=True) == pytest.approx(20.0)
    assert grid.paper.gain("dlrm", "cove", "none", "auc", over_base=True) is None


@pytest.mark.parametrize(
    ("gain", "low", "high", "adjusted", "printed", "against", "lower", "verdict"),
    [
        (0.02, 0.01, 0.03, 0.01, 6.0, 0.001, False, "holds"),
        (-0.02, -0.03, -0.01, 0.01, 6.0, 0.001, False, "does not hold"),
        (-0.02, -0.03, -0.01, 0.01, None, math.nan, True, "holds"),
        (0.00, -0.01, 0.01, 0.90, 6.0, 0.01, False, "does not hold"),
        (0.00, -0.01, 0.01, 0.90, -6.0, 0.01, True, "does not hold"),
        (0.00, -0.01, 0.01, 0.90, 6.0, 0.06, False, "not decided"),  # beyond the interval, but not after the correction
        (0.00, -0.01, 0.01, 0.90, -6.0, 0.01, False, "not decided"),  # more than published is no refutation
        (0.02, 0.01, 0.03, 0.20, 6.0, 0.01, False, "smaller than published"),
        (-0.02, -0.03, -0.01, 0.20, -6.0, 0.01, True, "smaller than published"),
        (0.02, 0.01, 0.03, 0.20, 6.0, math.nan, False, "not decided"),  # as where it is of other data
        (0.00, -0.01, 0.01, 0.90, None, math.nan, False, "not decided"),
        (0.05, math.nan, math.nan, math.nan, 6.0, math.nan, False, "not decided"),
    ],
)
def test_verdicts(
    gain: float, low: float, high: float, adjusted: float, printed: float | None, against: float, lower: bool,
    verdict: str,
) -> None:  # fmt: skip
    measured = PairedTest(5, gain, low, high, adjusted)
    claim = Claim("m", "x", "cove", "none", measured, adjusted, printed, against, lower, 0.05)
    assert claim.verdict == verdict
    assert f"m, x: cove is better than none: **{verdict}**: " in claim.sentence()


def of_small_gain(folder: Path, *overrides: str) -> tuple[GridConfig, Results]:
    """DeepFM gains a little with each metric, 19.5 % of AUC are published and 5 % of grouped AUC."""
    both = "+paper.gains.deepfm.cove.gauc=5"
    grid = small_grid(folder, "metrics=[auc,gauc]", "only=['deepfm/*']", both, *overrides)
    values = {}
    for metric, gains in {"auc": [0.001, 0.0, 0.0015], "gauc": [0.02, 0.0, 0.05]}.items():
        base = AUC["deepfm/none"]
        values["test", "deepfm", "none", metric] = dict(enumerate(base))
        values["test", "deepfm", "cove", metric] = {s: b + g for s, (b, g) in enumerate(zip(base, gains, strict=True))}
    return grid, Results(values)


def test_published_gains_are_tested_with_the_same_correction(tmp_path: Path) -> None:
    auc, gauc = claims_of(*of_small_gain(tmp_path), "test")
    p = [
        stats.ttest_1samp(np.array(gains) / 0.71, published / 100).pvalue
        for gains, published in (([0.001, 0.0, 0.0015], 19.5), ([0.02, 0.0, 0.05], 5.0))
    ]
    assert auc.adjusted_published == pytest.approx(2 * p[0])
    assert gauc.adjusted_published == pytest.approx(p[1])
    assert (auc.verdict, gauc.verdict) == ("does not hold", "not decided")
    assert "published: +19.50 %, p of that gain < 0.0001 by Holm" in auc.sentence()


def test_published_values_of_other_data_are_shown_and_decide_nothing(tmp_path: Path) -> None:
    grid, results = of_small_gain(tmp_path, "paper.same_data=false", "paper.source=Table 9 of other lists")
    claims = claims_of(grid, results, "test")
    assert [claim.verdict for claim in claims] == ["not decided"] * 2
    assert claims[0].sentence().endswith("; published: +19.50 %")
    table = comparison_table(grid, claims, "test", finished=True)
    assert table.header[-3:] == ("Table 9 of other lists", "Table 9 of other lists: gain", "verdict")
    assert (
        "Published values (Table 9 of other lists) are not of the data used here and decide nothing." in table.notes[0]
    )
    latex = paper_tables(grid, results, claims, "test", finished=True)
    assert "(Table 9 of other lists) are not of the data used here and decide nothing." in latex[1].text()


def test_a_gain_smaller_than_published_is_counted_by_itself() -> None:
    claim = Claim("m", "x", "cove", "none", PairedTest(5, 0.02, 0.01, 0.03, 0.2), 0.2, 6.0, 0.01, False, 0.05)
    assert tally([claim]) == "1 claims: 0 hold, 1 smaller than published, 0 do not hold, 0 not decided."


def test_comparisons_that_cannot_be_tested_are_not_counted_in_the_correction(tmp_path: Path) -> None:
    grid, results = made(tmp_path)
    claims = claims_of(grid, results, "test")
    words = "Holm's correction over the 2 comparisons that could be tested"
    assert (
        f"with {words}; not all cells are finished, so p will change."
        in comparison_table(grid, claims, "test", finished=False).notes[0]
    )
    assert f"with {words}. A gain" in comparison_table(grid, claims, "test", finished=True).notes[0]
    means, gains, _ = paper_tables(grid, results, claims, "test", finished=True)
    assert f"after {words}." in means.caption
    assert f"after {words}." in gains.caption
    write_everything(grid, cells_of(grid), "x")
    files = [(tmp_path / "runs" / name).read_text() for name in ("tables.md", "tables.tex")]
    assert all("not all cells are finished, so p will change" in text for text in files)
