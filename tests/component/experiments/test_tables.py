"""Tidy results, tables and pictures, from cells written by hand."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cove_dist.experiments.claims import claims_of
from cove_dist.experiments.grid import cells_of
from cove_dist.experiments.pictures import draw, settings_of
from cove_dist.experiments.program import write_everything
from cove_dist.experiments.results import collect
from cove_dist.experiments.text import TextTable, decimals, mean_and_deviation_text, p_value, percent
from data_pipeline.json_files import write_json
from tests.component.experiments.grids import made, small_grid, write_cell
from tests.configurations import evaluated


def test_the_tidy_table_has_a_row_a_cell_split_and_metric(tmp_path: Path) -> None:
    grid, _ = made(tmp_path)
    rows = collect(cells_of(grid), grid).to_pylist()
    assert len(rows) == (3 + 3 + 3 + 1) * 3
    assert rows[0] == {
        "model": "deepfm", "quantizer": "none", "seed": 0, "split": "test", "metric": "auc", "value": 0.70,
        "epochs": 3, "best_epoch": 2, "seconds": 12.5, "samples_per_second": 1000.0,
    }  # fmt: skip


def test_tables_are_made_from_the_results_of_an_earlier_run(tmp_path: Path) -> None:
    """With the protocol, and without changing the results; after a change of the published values, say."""
    grid, _ = made(tmp_path, "only=['deepfm/*']", f"results={tmp_path}/results")
    write_everything(grid, cells_of(grid), "x")
    tables, results = tmp_path / "results" / "tables.md", tmp_path / "results" / "results.parquet"
    before, recorded = tables.read_text(), results.read_bytes()
    shutil.rmtree(grid.output)
    again = replace(grid, tables_only=True)
    write_everything(again, cells_of(again), "x")
    assert "best checkpoints; ranking per user" in before
    assert (tables.read_text(), results.read_bytes()) == (before, recorded)
    write_everything(replace(again, seeds=(0, 1)), cells_of(replace(again, seeds=(0, 1))), "x")
    assert "| deepfm | cove | 0.7160 ± 0.0085 | 0.2840 ± 0.0085 | 2 of 2 |" in tables.read_text()


def test_further_comparisons_of_the_grid(tmp_path: Path) -> None:
    grid, results = made(tmp_path, "compare=[[none,cove]]", "metrics=[auc]")
    claims = claims_of(grid, results, "test")
    assert [(c.new, c.old) for c in claims[:2]] == [("cove", "none"), ("none", "cove")]
    assert [c.verdict for c in claims[:2]] == ["holds", "does not hold"]
    assert claims[1].published == pytest.approx(100 * (0.50 - 0.60) / 0.60)  # published gains are over the base


def test_files_of_an_unfinished_grid(tmp_path: Path) -> None:
    grid, _ = made(tmp_path, f"results={tmp_path}/results", "picture=dots")
    outcome = write_everything(grid, cells_of(grid), "cove experiment small")
    names = sorted(path.name for path in outcome.folder.iterdir())
    assert names == [
        *("dots_test.pdf", "dots_test.png", "dots_test.svg"), "results.parquet", "runs.zip", "tables.md", "tables.tex"
    ]  # fmt: skip
    text = (outcome.folder / "tables.md").read_text()
    assert "## Small grid: test split, best checkpoints; ranking per user\n" in text
    assert "Made by `cove experiment small`. Settings are those of the configuration files" in text
    assert "| deepfm | cove | 0.7210 ± 0.0105 | 0.2790 ± 0.0105 | 3 of 3 |" in text
    assert "| dlrm | cove | 0.7200 | 0.2800 | 1 of 3 |" in text
    assert "| deepfm | auc | cove / none | +1.55 % | +1.20 % to +1.90 % | 3 |" in text
    assert "| 0.5000 → 0.6000 | +19.50 % | < 0.0001 | holds |" in text
    assert "2 of 12 cells:\n\n- dlrm/cove/seed_1: missing\n- dlrm/cove/seed_2: missing" in text
    assert "![Small grid](dots_test.png)" in text
    latex = (outcome.folder / "tables.tex").read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 3, "means, and gains of two metrics"
    assert len(pq.read_table(outcome.folder / "results.parquet")) == 30


def test_metrics_apart_by_frequency(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, "by_frequency=[auc]", "only=['deepfm/*']", "seeds=[0,1]")
    for cell in cells_of(grid):
        gain = 0.1 + 0.02 * cell.seed if cell.quantizer == "cove" else 0.0
        write_cell(cell, {"auc": 0.7, "logloss": 0.5, "auc/item_q1": 0.6 + gain, "auc/user_never": math.nan})
    write_everything(grid, cells_of(grid), "x")
    text = (tmp_path / "runs" / "tables.md").read_text()
    assert "| model | compared | by | q1 | q2 | q3 | q4 | never |" in text
    assert "| deepfm | cove / none | item | 0.6000, +0.1100 ± 0.0141 | missing | missing | missing | missing |" in text
    assert "| deepfm | cove / none | user | missing | missing | missing | missing | missing |" in text


def test_files_of_a_grid_without_results(tmp_path: Path) -> None:
    grid = small_grid(tmp_path, "picture=dots")
    outcome = write_everything(grid, cells_of(grid), "x")
    text = (outcome.folder / "tables.md").read_text()
    assert "| deepfm | none | missing | missing | 0 of 3 |" in text
    assert "deepfm, auc: cove is better than none: **not decided**: no seed has both." in text
    assert not list(outcome.folder.glob("*.png"))


def test_a_curve_over_a_varied_setting(tmp_path: Path) -> None:
    varied = 'quantizers.cove=["quantizer=cove","quantizer.alpha=0.5"]'
    zero = 'quantizers.none=["quantizer=cove","quantizer.alpha=0"]'
    grid, results = made(tmp_path, "picture=curve", "varied=quantizer.alpha", varied, zero)
    assert settings_of(grid, cells_of(grid)) == {"none": 0.0, "cove": 0.5}
    [picture] = draw(grid, cells_of(grid), results, tmp_path)
    assert picture.path.name == "curve_test.png"
    assert picture.caption.startswith("Gain over quantizer.alpha = 0, paired by seed")


@pytest.mark.parametrize(
    ("trials", "words"),
    [
        ((7, 7, 7, 7), "tuned by 7 trials each, on validation auc"),
        ((7, 7, 9, 9), "7 to 9 trials, as many for each quantizer of a model"),
        ((7, 9, 7, 9), "unequal budgets of 7 to 9 trials"),
    ],
)
def test_tuned_settings_are_stated_with_their_budget(tmp_path: Path, trials: tuple[int, ...], words: str) -> None:
    entries = [f"{{overrides: [], metric: validation auc, trials: {count}}}" for count in trials]
    best = tmp_path / "best.yaml"
    deepfm, dlrm = (f"{{none: {none}, cove: {cove}}}" for none, cove in zip(entries[::2], entries[1::2], strict=True))
    best.write_text(f"pairs: {{deepfm: {deepfm}, dlrm: {dlrm}}}")
    grid = small_grid(tmp_path, f"tuned={best}")
    outcome = write_everything(grid, cells_of(grid), "x")
    assert words in (outcome.folder / "tables.md").read_text()


def test_numbers_as_text() -> None:
    assert mean_and_deviation_text([0.5, 0.7]) == "0.6000 ± 0.1414"
    assert mean_and_deviation_text([1234.0, 1236.0]) == "1,235 ± 1"
    assert mean_and_deviation_text([0.5]) == "0.5000"
    assert mean_and_deviation_text([0.00041, 0.00044, 0.00038]) == "0.000410 ± 0.000030"
    assert [decimals(mean) for mean in (-0.0101, 0.01, 0.0099, 1e-9, 0.0, 1.5, math.nan)] == [4, 4, 5, 7, 4, 4, 4]
    assert mean_and_deviation_text([]) == percent(math.nan) == "missing"
    assert (percent(5.951), percent(-0.3)) == ("+5.95 %", "-0.30 %")
    assert (p_value(0.00001), p_value(0.25), p_value(math.nan)) == ("< 0.0001", "0.2500", "not tested")


def test_special_characters_in_tables() -> None:
    table = TextTable("t", ("a|b",), (("c",),))
    assert table.markdown() == "## t\n\n| a\\|b |\n| --- |\n| c |\n"


def test_a_mean_over_fewer_runs_than_the_others_says_so(tmp_path: Path) -> None:
    """A run in which a metric is undefined is often the one that went wrong."""
    grid, _ = made(tmp_path)
    cell = next(cell for cell in cells_of(grid) if cell.name == "deepfm/cove/seed_1")
    write_cell(cell, {"auc": math.nan, "logloss": 0.278, "users": 40})
    text = (write_everything(grid, cells_of(grid), "x").folder / "tables.md").read_text()
    assert "| deepfm | none | 0.7100 ± 0.0100 | 0.2900 ± 0.0100 | 3 of 3 |" in text
    assert "| deepfm | cove | 0.7205 ± 0.0148 (of 2) | 0.2790 ± 0.0105 | 3 of 3 |" in text


def test_best_checkpoints_by_different_metrics_are_named(tmp_path: Path) -> None:
    grid, _ = made(tmp_path)
    cell = next(cell for cell in cells_of(grid) if cell.name == "deepfm/cove/seed_1")
    evaluated({"auc": 0.72, "logloss": 0.278}, best_by="logloss").save(cell.folder)
    text = (write_everything(grid, cells_of(grid), "x").folder / "tables.md").read_text()
    assert "Differs between the runs: best checkpoint by: auc in " in text
    assert "; logloss in deepfm/cove/seed_1." in text


def test_a_metric_that_no_run_has_is_named(tmp_path: Path) -> None:
    grid, _ = made(tmp_path, "metrics=[auc,ndcg@3]")
    text = (write_everything(grid, cells_of(grid), "x").folder / "tables.md").read_text()
    assert "No run has ndcg@3: neither the task nor evaluation.metrics gives it, or not at this k." in text
    (tmp_path / "other").mkdir()
    grid, _ = made(tmp_path / "other")
    assert "No run has" not in (write_everything(grid, cells_of(grid), "x").folder / "tables.md").read_text()


def test_a_cell_that_diverged_is_shown_as_failed_and_its_mean_as_of_fewer_runs(tmp_path: Path) -> None:
    grid, _ = made(tmp_path, "only=['dlrm/*']")
    for cell in cells_of(grid):
        if cell.quantizer == "none" or cell.seed:
            shutil.rmtree(cell.folder, ignore_errors=True)
            cell.folder.mkdir(parents=True)
            record = {"state": "failed", "reason": "loss not finite at step 12", "error": "...", "seconds": 1.0}
            write_json(cell.folder / "cell.json", record)
    text = (write_everything(grid, cells_of(grid), "x").folder / "tables.md").read_text()
    assert "| dlrm | none | failed | failed | 0 of 3, 3 failed |" in text
    assert "| dlrm | cove | 0.7200 | 0.2800 | 1 of 3, 2 failed |" in text
    assert "- dlrm/cove/seed_1: failed: loss not finite at step 12" in text
