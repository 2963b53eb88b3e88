"""The table of the paper's claims, from results and curves written by hand and from those of the repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from cove_dist.config_folders import find_file
from cove_dist.errors import ConfigError
from cove_dist.experiments.claims import claims_of, tally
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import load_grid
from cove_dist.experiments.paper import (
    BEGIN,
    END,
    CoverageClaim,
    GainClaim,
    coverage_rows,
    gain_rows,
    paper_table,
)
from cove_dist.experiments.results import Results
from cove_dist.experiments.text import write_between_markers
from tests.component.experiments.grids import small_grid

RESULTS = Path(__file__).parents[3] / "results"
BASE, COVE = [0.70, 0.71, 0.72], [0.71, 0.722, 0.731]
GAIN = {"paper": "Table 9", "claim": "COVE helps", "data": "small", "grid": "small", "metric": "auc"}


def results(**by_quantizer: list[float]) -> Results:
    return Results({("test", "deepfm", name, "auc"): dict(enumerate(v)) for name, v in by_quantizer.items()})


def test_a_row_has_the_published_gain_ours_with_its_interval_and_the_verdict(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    claim = GainClaim(**GAIN, compared=(("cove", "none"),), models=("deepfm",))
    [row] = gain_rows(claim, grid, claims_of(grid, results(none=BASE, cove=COVE), "test"))
    gains = 100 * (np.array(COVE) - BASE) / np.mean(BASE)
    half = stats.t.ppf(0.975, 2) * gains.std(ddof=1) / np.sqrt(3)
    ours = f"{gains.mean():+.2f} % ({gains.mean() - half:+.2f} to {gains.mean() + half:+.2f})"
    assert row == ("Table 9", "COVE helps: deepfm, auc", "small", "+19.50 %", ours, "3", "holds")


def test_a_published_gain_of_other_data_is_named_and_decides_nothing(tmp_path: Path) -> None:
    claim = GainClaim(**GAIN, compared=(("cove", "none"),), models=("deepfm",))
    little = [0.701, 0.71, 0.7215]
    verdicts = []
    for same in ("true", "false"):
        grid = small_grid(tmp_path, f"paper.same_data={same}")
        [row] = gain_rows(claim, grid, claims_of(grid, results(none=BASE, cove=little), "test"))
        verdicts.append((row[3], row[-1]))
    assert verdicts == [("+19.50 %", "does not hold"), ("+19.50 %, of other data", "not decided")]


def test_equal_metrics_with_every_seed_decide_nothing(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    claim = GainClaim(**GAIN, compared=(("cove", "none"),), models=("deepfm",))
    [row] = gain_rows(claim, grid, claims_of(grid, results(none=BASE, cove=BASE), "test"))
    assert row[3:] == ("+19.50 %", "+0.00 % (+0.00 to +0.00)", "3", "not decided")


def test_what_has_no_results_is_not_measured_and_one_seed_has_no_interval(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    claim = GainClaim(**GAIN, compared=(("cove", "none"),))
    rows = gain_rows(claim, grid, claims_of(grid, results(none=BASE, cove=COVE[:1]), "test"))
    assert [row[1:] for row in rows] == [
        ("COVE helps: deepfm, auc", "small", "+19.50 %", "+1.43 %", "1", "not decided"),
        ("COVE helps: dlrm, auc", "small", "a picture", "", "", "not measured"),
    ]


def test_a_claim_that_its_grid_cannot_answer_is_refused(tmp_path: Path) -> None:
    grid = small_grid(tmp_path)
    claims = claims_of(grid, results(none=BASE, cove=COVE), "test")
    for wrong in ({"metric": "ndcg@1"}, {"compared": (("none", "cove"),)}, {"models": ("dcn",)}):
        claim = GainClaim(**(GAIN | {"compared": (("cove", "none"),)} | wrong))
        with pytest.raises(ConfigError, match=r"grid small compares no .* it has the metrics auc, logloss"):
            gain_rows(claim, grid, claims)


def write_curves(path: Path, covered: dict[str, list[float]], shuffled: float) -> None:
    rows = [
        {"entity": "item", "level": 1, "category_column": "category", "category": name, "codes_taken": i + 1,
         "covered": value, "covered_shuffled_mean": shuffled}
        for name, values in covered.items() for i, value in enumerate(values)
    ]  # fmt: skip
    others = [rows[0] | {"entity": "user", "covered": 0.0}, rows[0] | {"level": 2, "covered": 0.0}]
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(others + rows), path)


@pytest.mark.parametrize(
    ("covered", "shuffled", "verdict"),
    [(0.94, 0.5, "does not hold"), (0.99, 0.6, "holds"), (0.99, 0.97, "holds, by chance alone")],
)
def test_coverage_of_the_named_categories_is_compared_with_shuffled_codes(
    tmp_path: Path, covered: float, shuffled: float, verdict: str
) -> None:
    curves = {"travel": [0.1, covered - 0.01], "weather": [0.2, covered + 0.01], "news": [0.1, 0.2]}
    write_curves(tmp_path / "curves" / "deepfm.parquet", curves, shuffled)
    claim = CoverageClaim(
        paper="Figure 9", claim="few codes", data="small", curves="curves", published={"deepfm": 2, "dcn": 2},
        column="category", categories=("travel", "weather"),
    )  # fmt: skip
    deepfm, dcn = coverage_rows(claim, tmp_path)
    ours = f"{100 * covered:.0f} %; shuffled codes {100 * shuffled:.0f} %"
    assert deepfm[3:] == ("nearly 100 % by 2 codes", ours, "1", verdict)
    assert dcn[4:] == ("", "", "not measured")


def test_coverage_of_several_seeds_has_an_interval(tmp_path: Path) -> None:
    values = [0.5, 0.6, 0.8]
    for seed, value in enumerate(values):
        write_curves(tmp_path / "curves" / f"deepfm_{seed}.parquet", {"travel": [value]}, 0.3)
    claim = CoverageClaim(
        paper="Figure 9", claim="few codes", data="small", curves="curves", published={"deepfm": 1}, column="category"
    )
    [row] = coverage_rows(claim, tmp_path)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert row[4:] == (f"63 % ({100 * low:.0f} to {100 * high:.0f}); shuffled codes 30 %", "3", "does not hold")


def test_categories_that_the_report_did_not_draw_are_refused(tmp_path: Path) -> None:
    write_curves(tmp_path / "curves" / "deepfm.parquet", {"travel": [0.5]}, 0.5)
    claim = CoverageClaim(
        paper="Figure 9", claim="few codes", data="small", curves="curves", published={"deepfm": 1},
        column="category", categories=("travel", "weather"),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"deepfm\.parquet: no curve of weather in category; .*top_categories"):
        coverage_rows(claim, tmp_path)


def test_only_what_is_between_the_markers_is_replaced(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write_between_markers(readme, BEGIN, END, "new\n")
    assert readme.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    readme.write_text("no markers\n")
    with pytest.raises(ConfigError, match=r"README\.md: needs the lines"):
        write_between_markers(readme, BEGIN, END, "new\n")
    assert readme.read_text() == "no markers\n"


def test_a_folder_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"folder = .*missing: no such folder"):
        paper_table([f"folder={tmp_path / 'missing'}", "readme=null"])


SHIPPED = {"_".join(path.relative_to(RESULTS).parts[:-1]): path.parent for path in sorted(RESULTS.rglob("tables.md"))}


@pytest.mark.parametrize(("name", "folder"), [each for each in SHIPPED.items() if find_file(f"grid/{each[0]}")])
def test_the_tallies_of_the_repository_are_those_of_its_results(name: str, folder: Path) -> None:
    grid = load_grid(file_arguments("grid", [name]))
    claims = claims_of(grid, Results.of(pq.read_table(folder / "results.parquet")), "test")
    made = [claim for claim in claims if claim.measured.pairs]
    text = (folder / "tables.md").read_text()
    assert (tally(made) in text) == bool(made)


def test_the_table_of_the_repository_is_what_its_results_give(tmp_path: Path) -> None:
    """If not: cove paper."""
    shipped = RESULTS / "README.md"
    readme = shutil.copy(shipped, tmp_path)
    table = paper_table([f"folder={RESULTS}", f"readme={readme}"])
    assert Path(readme).read_text() == shipped.read_text()
    assert [*dict.fromkeys(row[0] for row in table.rows)] == [
        *("Table 2", "Table 3", "Table 4", "Table 5", "Figure 3", "Figure 4", "Figure 5")
    ]
