"""A report on several runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cove_dist.allowed_packages import ALLOWED
from cove_dist.errors import ConfigError
from cove_dist.report.program import report_run
from cove_dist.report.several import labels
from tests.component.own_metric import write_metric
from tests.component.report.runs import Page, log, write_data, write_run
from tests.configurations import evaluated


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two evaluated runs of one data set, with and without quantizers."""
    data = write_data(tmp_path / "data")
    folders = [
        write_run(tmp_path / name, data, log(quantized=quantized), quantized=quantized)
        for name, quantized in (("base", False), ("cove", True))
    ]
    for folder, auc, logloss in zip(folders, (0.71, 0.72), (0.50, 0.51), strict=True):
        evaluated({"auc": auc, "logloss": logloss, "samples": 9}).save(folder)
    return folders


def test_metrics_stand_side_by_side_with_the_best_in_bold(runs: list[Path]) -> None:
    page = report_run([f"runs=[{','.join(map(str, runs))}]"]).page
    assert page == runs[0].parent / "report" / "report.html"
    html = page.read_text()
    assert Page(html).tags.count("img") == 2
    assert re.findall(r"<strong>([\d.]+)</strong>", html) == ["0.7200", "0.5000"]
    text = Page(html).text
    assert all(word in text for word in ("2 runs", "base", "cove", "COVE-DeepFM", "AUC", "log loss", "test split"))
    assert "samples" not in text, "a number of rows is no metric"
    for name in ("validation", "training"):
        assert all((page.parent / f"{name}.{kind}").is_file() for kind in ("png", "pdf", "svg"))


def test_a_run_that_is_not_evaluated_is_named(runs: list[Path], tmp_path: Path) -> None:
    (runs[1] / "metrics_test_best.json").unlink()
    text = Page(report_run([f"runs=[{','.join(map(str, runs))}]", f"output={tmp_path / 'o'}"]).page.read_text()).text
    assert f"cove is not evaluated: cove evaluate run={runs[1]}." in text


def test_metrics_that_no_imported_class_declares_are_named(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The run of which one chose the best checkpoint is reported by itself too, without a mark at the best epoch."""
    write_metric(runs[0].parent, monkeypatch, "gap_of_report")
    config = OmegaConf.load(runs[0] / "config.yaml")
    config.evaluation.metrics = {"gap_of_report": {"_target_": "module_of_gap_of_report.Mine"}}
    config.trainer.early_stopping.metric = "gap_of_report"
    OmegaConf.save(config, runs[0] / "config.yaml")
    evaluated({"auc": 0.7, "gap_of_report": 0.3}, best_by="gap_of_report").save(runs[0])
    both = [f"runs=[{','.join(map(str, runs))}]"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ALLOWED, "")
        assert "base: left out gap_of_report, which no imported class declares." in Page(page_of(both)).text
        assert "The mark is" not in page_of([f"run={runs[0]}"])
    assert "Gap of report" in Page(page_of(both)).text


def page_of(overrides: list[str]) -> str:
    return report_run(overrides).page.read_text()


def test_metrics_that_mean_different_things_are_refused(runs: list[Path]) -> None:
    evaluated({"auc": 0.7}, data="other").save(runs[1])
    with pytest.raises(ConfigError, match="their metrics mean different things"):
        report_run([f"runs=[{','.join(map(str, runs))}]"])


def test_one_run_or_two_keys_are_refused(runs: list[Path]) -> None:
    for given in ([f"runs=[{runs[0]}]"], [f"runs=[{runs[0]},{runs[0]}/]"]):
        with pytest.raises(ConfigError, match="two or more different run folders"):
            report_run(given)
    for given in ([], [f"run={runs[0]}", f"runs=[{runs[0]},{runs[1]}]"]):
        with pytest.raises(ConfigError, match=r"give the run folder as run=runs/a, or several as runs="):
            report_run(given)


def test_labels_are_as_short_as_they_may_be() -> None:
    assert labels(["runs/a", "runs/b/"]) == ["a", "b"]
    assert labels(["x/none/seed_0", "x/cove/seed_0"]) == ["none/seed_0", "cove/seed_0"]
