"""LaTeX tables of a paper: marks, symbols, numbers of siunitx, and widths by the metrics of Computer Modern."""

from __future__ import annotations

import math
import re
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from cove_dist.experiments.claims import claims_of
from cove_dist.experiments.grid import GridConfig, cells_of
from cove_dist.experiments.latex import TEXT_WIDTH, Column, LatexTable, latex_escape, number_column, with_uncertainty
from cove_dist.experiments.names import Names
from cove_dist.experiments.paper_tables import marks, paper_tables
from cove_dist.experiments.results import Results
from tests.component.experiments.grids import small_grid

COMPUTER_MODERN = Path(mpl.get_data_path()) / "fonts" / "ttf" / "cmb10.ttf"  # bold, the wider one
LONG = "+names.cove=a quantizer with a long name"
POINTS = 8  # of \footnotesize
BASE, COVE, BETTER = [0.70, 0.71, 0.72], [0.710, 0.722, 0.731], [0.71234, 0.72441, 0.73311]


def results_of(grid: GridConfig, metrics: tuple[str, ...]) -> Results:
    """Deepfm gains significantly, dlrm has the same values with all quantizers and one missing."""
    values = {}
    for metric in metrics:
        for (model, quantizer), seeds in {
            ("deepfm", "none"): BASE, ("deepfm", "cove"): COVE, ("dlrm", "none"): BASE, ("dlrm", "cove"): [],
        }.items():  # fmt: skip
            values["test", model, quantizer, metric] = dict(enumerate(seeds))
    return Results(values)


def width(table: LatexTable) -> float:
    r"""The width of a table in points, measured by the font; ``\tabcolsep`` is 3."""
    measure, font = TextToPath(), FontProperties(fname=str(COMPUTER_MODERN), size=POINTS)

    def of(text: str) -> float:
        return float(measure.get_text_width_height_descent(text, font, ismath=False)[0]) if text else 0.0

    def of_column(column: Column) -> float:
        return max(of(cell.shown) for cell in (column.header, *column.cells))

    return sum(map(of_column, table.columns)) + 6 * (len(table.columns) - 1)


def tables(folder: Path, metrics: tuple[str, ...] = ("auc", "logloss"), *overrides: str) -> list[LatexTable]:
    grid = small_grid(folder, f"metrics=[{','.join(metrics)}]", *overrides)
    assert cells_of(grid)
    results = results_of(grid, metrics)
    return paper_tables(grid, results, claims_of(grid, results, "test"), "test", finished=True)


def test_means_have_names_marks_and_symbols(tmp_path: Path) -> None:
    table = tables(tmp_path)[0].text()
    assert r"DeepFM & base & {\underline{\num{0.7100(100)}}} & \bfseries 0.7100(100) \\" in table
    assert r" & COVE & \bfseries 0.7210(105)\textsuperscript{\dag} & " in table
    assert r"0.7210(105)}}\textsuperscript{\ddag}} \\" in table, "more log loss is worse"
    assert r"DLRM & base & " in table
    assert r" & COVE & {--} & {--} \\" in table
    assert r"\begin{tabular}{@{}l l S[table-format=1.4(3), table-space-text-post={\textsuperscript{\ddag}}]" in table
    assert "{Model} & {Codes} & {AUC} & {log loss}" in table
    assert r"\label{tab:small-grid-test}" in table
    assert r"\textsuperscript{\dag} better, \textsuperscript{\ddag} worse than base for the same model" in table
    assert table.count(r"\addlinespace") == 1


def test_a_mean_of_fewer_seeds_is_named_and_not_marked(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, "metrics=[auc]")
    results = results_of(grid, ("auc",))
    results.values["test", "deepfm", "cove", "auc"] = {0: 0.9}
    table = paper_tables(grid, results, claims_of(grid, results, "test"), "test", finished=True)[0].text()
    assert r" & COVE & 0.9000" in table
    assert r"\bfseries" not in table, "the whole rows have equal means"
    assert "Of fewer than 3 seeds, and not marked: DeepFM COVE 1, DLRM COVE 0." in table


def test_frequency_rows_are_of_the_seeds_of_both(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, "metrics=[auc]", "by_frequency=[auc]", "only=['deepfm/*']")
    results = results_of(grid, ("auc",))
    results.values["test", "deepfm", "none", "auc/item_q1"] = {0: 0.5, 1: 0.5, 2: 0.8}
    results.values["test", "deepfm", "cove", "auc/item_q1"] = {0: 0.6, 1: 0.6}
    table = paper_tables(grid, results, claims_of(grid, results, "test"), "test", finished=True)[-1].text()
    assert re.search(r"DeepFM & base & 0\.5000\S* & ", table), "without the seed that COVE lacks"
    assert r" & COVE - base & +0.1000" in table
    assert "Of fewer than 3 seeds in some group: DeepFM COVE - base 2." in table


def test_names_of_the_grid_come_first(tmp_path: Path) -> None:
    names = Names.of(small_grid(tmp_path, "+names.deepfm=Mine", "+names.cove=Ours", "+names.auc=Area"))
    assert (names.model("deepfm"), names.model("dlrm")) == ("Mine", "DLRM")
    assert (names.quantizer("cove"), names.quantizer("none"), names.quantizer("item_only")) == (
        "Ours", "base", "item only",
    )  # fmt: skip
    assert (names.metric("auc"), names.metric("full_ndcg@10")) == ("Area", "NDCG@10, all items")
    two = small_grid(tmp_path, "models.dlrm=['model=deepfm']")
    assert Names.of(two).model("deepfm") == "deepfm", "two variants of one model keep their names"


def test_gains_have_a_table_a_metric(tmp_path: Path) -> None:
    _, auc, logloss = tables(tmp_path)
    assert auc.label == "tab:small-grid-test-gains-auc"
    text = auc.text()
    assert re.search(r"DeepFM & \+1\.55 & \[1\.20, 1\.90\] & 0\.\d{4} & \+19\.50 & holds \\", text)
    assert r"DLRM & {--} & -- & {--} & {--} & not decided \\" in text
    assert "Published" not in logloss.text(), "the paper has no log loss"


@pytest.mark.parametrize("metrics", [("auc",), ("ndcg@1", "ndcg@5", "ndcg@10", "hr@5", "auc", "logloss", "gauc")])
def test_no_table_is_wider_than_a_column_of_text(tmp_path: Path, metrics: tuple[str, ...]) -> None:
    made = tables(
        tmp_path, metrics, "by_frequency=[auc]", "evaluate=['by_frequency=true']", "compare=[[none,cove]]", LONG
    )
    assert all(width(table) <= TEXT_WIDTH for table in made), [width(table) for table in made]
    assert all(width(table) <= table.width for table in made), "the estimate is an upper bound"
    shown = [column.header.shown for table in made for column in table.columns]
    assert {Names({}).metric(metric) for metric in metrics} <= set(shown)
    assert len({table.label for table in made}) == len(made)


@pytest.mark.parametrize(
    ("metric", "means", "expected"),
    [
        ("auc", (0.7, 0.8, 0.9), ["", "second", "best"]),
        ("logloss", (0.7, 0.8, 0.9), ["best", "second", ""]),
        ("auc", (0.9, 0.8, 0.9), ["best", "second", "best"]),
        ("auc", (0.9, math.nan), ["", ""]),
        ("samples", (1.0, 2.0), ["", ""]),
    ],
)
def test_marks(metric: str, means: tuple[float, ...], expected: list[str]) -> None:
    assert marks(metric, [[] if math.isnan(mean) else [mean] for mean in means]) == expected


def test_numbers_of_siunitx() -> None:
    assert with_uncertainty(BETTER) == "0.7233(104)"
    assert with_uncertainty([0.5]) == "0.5000"
    assert with_uncertainty([0.01, -0.03], signed=True) == "-0.0100(283)"
    assert with_uncertainty([1234.0, 1236.0]) == "1235(1)"
    assert with_uncertainty([]) == "--"
    assert with_uncertainty([0.00041, 0.00044, 0.00038]) == "0.000410(30)"
    column = number_column("x", ["+12.50", "-0.30", "< 0.0001"])
    assert column.kind == "S[table-format=+2.2]"
    assert [cell.source for cell in column.cells] == ["+12.50", "-0.30", "{$<$ 0.0001}"]


def test_special_characters() -> None:
    assert latex_escape("a_b 5 % -1.5 x-2 ± [-3") == r"a\_b 5 \% $-$1.5 x-2 $\pm$ [$-$3"
