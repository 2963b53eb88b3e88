"""Train, evaluate and report, by the programs themselves."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq

from tests.component.report.runs import LEVELS, Page, random_codes, write_codes
from tests.configurations import COVE, small_run
from tests.end_to_end.programs import launch, succeed


def test_report_of_a_base_model(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed("train", *small_run(prepared, run))
    succeed("evaluate", f"run={run}", "device=cpu")
    assert succeed("report", f"run={run}").strip() == f"report: {run}/report/report.html"
    assert sorted(path.name for path in run.glob("report/*.png")) == ["losses.png", "speed.png", "validation.png"]
    parsed = Page((run / "report" / "report.html").read_text())
    assert "DeepFM on synthetic" in parsed.text
    assert re.search(r"Metrics: test split, best checkpoint \(step \d+\)", parsed.text)
    assert len(parsed.references) == 3


def test_report_of_a_quantized_run(prepared: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    succeed("train", *small_run(prepared, run, *COVE))
    for entity, levels in LEVELS.items():
        ids = pq.read_table(prepared / "ids" / f"{entity}_id.parquet")["original_id"]
        write_codes(run, entity, ids, random_codes(len(ids), levels))
    succeed("report", f"run={run}", "shuffles=2")
    names = {path.name for path in run.glob("report/*.png")}
    assert {"code_sizes.png", "perplexity.png", "coverage_user_category_1.png", "coverage_item_category_2.png"} <= names
    curves = pq.read_table(run / "report" / "coverage.parquet")
    assert set(curves["entity"].to_pylist()) == {"user", "item"}
    parsed = Page((run / "report" / "report.html").read_text())
    assert len(parsed.references) == len(names)
    assert "Codes against categories" in parsed.text


def test_no_such_run(tmp_path: Path) -> None:
    done = launch("report", f"run={tmp_path}/nowhere")
    assert done.returncode == 2
    assert f"error: run = {tmp_path}/nowhere: no config.yaml there" in done.stderr
    assert list(tmp_path.iterdir()) == []
