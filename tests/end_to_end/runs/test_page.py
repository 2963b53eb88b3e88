"""The page of a report, from run folder to HTML."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.report.page import figure
from cove_dist.report.program import report_run
from cove_dist.training.provenance import record_start
from data_pipeline.fingerprint import data_fingerprint
from tests.component.report.runs import Page, log, random_codes, write_codes, write_data, write_run
from tests.configurations import evaluated

YEAR = "<script>year"
COVERAGE = ["coverage_item_%3Cscript%3Eyear.png", "coverage_item_genres.png"]
CURVES = ["losses.png", "perplexity.png", "speed.png", "validation.png"]


GROUPED = {f"auc/{entity}_q{i}": 0.6 + i / 100 for entity in ("user", "item") for i in (1, 2, 3, 4)}
NEVER = {f"auc/{entity}_never": None for entity in ("user", "item")}


def with_categories(folder: Path) -> Path:
    genres = pa.array([["drama", "war"][: 1 + i % 2] for i in range(80)])
    columns = {"original_id": range(80), "genres": genres, YEAR: [1990 + i % 5 for i in range(80)]}
    return write_data(folder, pa.table(columns))


def quantized(folder: Path, data: Path) -> Path:
    write_run(folder, data, log())
    write_codes(folder, "user", range(60), random_codes(60, (8, 3)))
    write_codes(folder, "item", range(80), random_codes(80, (12, 4)))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return with_categories(tmp_path / "data")


@pytest.fixture
def run(tmp_path: Path, data: Path) -> Path:
    return quantized(tmp_path / "run", data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a quantized run that has been trained and evaluated."""
    folder = tmp_path_factory.mktemp("page")
    run = quantized(folder / "run", with_categories(folder / "data"))
    metrics = {"auc": 0.79123, "samples": 12345} | GROUPED | NEVER
    evaluated(metrics, checkpoint="step_00000006").save(run)
    evaluated({"auc": 0.81} | GROUPED | NEVER, split="validation", kind="newest").save(run)
    (run / "summary.json").write_text(json.dumps({"step": 6, "best": None, "samples_per_second": 13694.7}))
    for step in (0, 4):
        context = DistributedContext(0, 2, 2, torch.device("cpu"))
        record_start(run, step, str(folder / "data"), data_fingerprint(folder / "data"), context, resumed=step > 0)
    return report_run([f"run={run}", "shuffles=2", "top_categories=3"]).page


def pictures(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.png"))


def test_the_page_of_a_quantized_run(page: Path) -> None:
    assert page.parts[-3:] == ("run", "report", "report.html")
    assert pictures(page.parent) == sorted(["code_sizes.png", *COVERAGE, *CURVES])
    html = page.read_text()
    parsed = Page(html)
    assert len(parsed.references) == parsed.tags.count("img") == 7
    assert all(reference.startswith("data:image/png;base64,") for reference in parsed.references)
    assert not any(word in html for word in ("http://", "https://", "@import", "url("))
    assert "script" not in parsed.tags
    assert "COVE-DeepFM on synthetic" in parsed.text
    assert "item_levels:\n  - 12\n  - 4" in parsed.text
    assert "adjusted mutual information" in parsed.text
    assert "Ids of the largest codes" in parsed.text and "item, level 2: " in parsed.text
    assert YEAR in parsed.text


def test_curves_next_to_the_page(page: Path) -> None:
    table = pq.read_table(page.parent / "coverage.parquet").to_pydict()
    assert len(table["covered"]) == (2 + 3) * (12 + 4)
    drawn = set(zip(table["category_column"], table["category"], strict=True))
    assert {("genres", "drama"), ("genres", "war"), (YEAR, "1990")} < drawn
    assert set(table["entity"]) == {"item"}


def test_final_metrics_and_summary(page: Path) -> None:
    text = Page(page.read_text()).text
    assert all(words in text for words in ("0.7912", "12,345", "13,695", "0.8100"))
    assert "Metrics: test split, best checkpoint (step 6); ranking per user" in text
    assert "Metrics: validation split, newest checkpoint (step 2); ranking per user" in text
    assert "Not evaluated yet" not in text


def test_provenance_of_every_start(page: Path) -> None:
    text = Page(page.read_text()).text
    assert "Started, 20" in text
    assert "Resumed at step 4, 20" in text
    assert text.count(f"fingerprint {data_fingerprint(page.parents[2] / 'data')}") == 2
    assert f"torch {torch.__version__}" in text


def test_metrics_of_groups_have_tables_of_their_own(page: Path) -> None:
    text = Page(page.read_text()).text
    assert "auc/" not in text
    title = "By how often ids occur in training:"
    tables = text[text.index(f"{title} test split, best checkpoint (step 6); ranking per user") :]
    tables = tables[: tables.index(f"{title} validation split")]
    assert tables.count("q1q2q3q4never") == tables.count("auc0.61000.62000.63000.6400-") == 2


def test_an_unfinished_run_says_what_is_missing(tmp_path: Path, data: Path) -> None:
    page = report_run([f"run={write_run(tmp_path / 'run', data, log()[:2])}"]).page
    assert pictures(page.parent) == ["losses.png", "perplexity.png", "speed.png"]
    text = Page(page.read_text()).text
    assert "Not evaluated yet" in text
    assert "Training has not ended" in text
    assert "The run has no checkpoint: pictures of the codes are left out" in text


def test_a_run_without_quantizers(tmp_path: Path, data: Path) -> None:
    run = write_run(tmp_path / "run", data, log(quantized=False), quantized=False)
    page = report_run([f"run={run}", f"output={tmp_path / 'elsewhere'}"]).page
    assert page.parent == tmp_path / "elsewhere"
    assert pictures(page.parent) == ["losses.png", "speed.png", "validation.png"]
    assert not (page.parent / "coverage.parquet").exists()
    assert "This run has no quantizers" in Page(page.read_text()).text


def test_data_without_categories(run: Path, data: Path) -> None:
    (data / "categories" / "item_id.parquet").unlink()
    page = report_run([f"run={run}"]).page
    assert pictures(page.parent) == sorted(["code_sizes.png", *CURVES])
    assert "holds no categories of the ids" in Page(page.read_text()).text


def test_settings_out_of_range(run: Path) -> None:
    with pytest.raises(ConfigError, match="shuffles = 0: input should be greater than 0"):
        report_run([f"run={run}", "shuffles=0"])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("cpu", "cpu"),
        (12345, "12,345"),
        (13694.7, "13,695"),
        (0.79123, "0.7912"),
        (1.2e-5, "1.2e-05"),
        (0.0, "0.0000"),
    ],
)
def test_values_are_formatted_for_reading(value: object, text: str) -> None:
    assert figure(value) == text
