"""Whole searches, with trainings that only write their logs or fail."""

from __future__ import annotations

import json
import math
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from cove_dist.errors import TrainingError
from cove_dist.experiments import trials as trials_module
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import cells_of
from cove_dist.experiments.tuning import run_search
from data_pipeline.json_files import to_json
from tests.component.experiments.grids import small_grid, write_search


def arguments(folder: Path, *overrides: str) -> list[str]:
    return file_arguments("search", [str(write_search(folder)), *overrides])


def test_pairs_take_turns_and_a_grid_takes_what_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a training that only writes its log: the value is the rate, and one trial fails."""
    trained: list[str] = []

    def train(name: str, given: list[str], log: Path, *_: object, **__: object) -> int:
        values = dict(argument.split("=", 1) for argument in given)
        trained.append(log.parent.parent.name)
        log.write_text("error: diverged\n")
        record = {"kind": "validation", "epoch": 1, "step": 1, "auc": float(values["trainer.optimizer.learning_rate"])}
        (log.parent / "log.jsonl").write_text(json.dumps(record) + "\n")
        (log.parent / "summary.json").write_text("{}")
        assert name == "train"
        return int(len(trained) == 3)

    monkeypatch.setattr(trials_module, "run_program", train)
    _, table = run_search(arguments(tmp_path, "trials=1", 'only=["*/none"]'), "cove tune small")
    assert [row[:2] for row in table.rows] == [("deepfm", "none")]
    assert "same budget: 1 trials. The settings without a search are among the trials. In random" in table.notes[0]
    _, table = run_search(arguments(tmp_path, "trials=3"), "cove tune small")
    assert trained == ["none", "cove"] * 3
    assert [row[3:5] for row in table.rows] == [("3 of 3", "2 complete, 1 failed"), ("3 of 3", "3 complete")]
    assert table.rows[0][5] == "0.0010"
    assert table.rows[1][5] == "not tried"
    assert "are among the trials, but not those of deepfm/cove (the keys of levels have different" in table.notes[0]
    run_search(arguments(tmp_path, "trials=4"), "x")
    assert len(trained) == 8, "one more of each"
    grid = small_grid(tmp_path, f"tuned={tmp_path}/search/best.yaml", 'only=["deepfm/*"]', "seeds=[0]")
    for cell in cells_of(grid):
        rates = [o for o in cell.overrides if "learning_rate" in o]
        assert len(rates) == 2
        assert float(rates[0].split("=")[1]) >= 0.001
    summary = tmp_path / "search" / "summary.md"
    assert "the same budget: 4 trials" in summary.read_text()
    run_search(arguments(tmp_path, "trials=5", 'only=["*/cove"]'), "x")
    run_search(arguments(tmp_path, "trials=4"), "x")
    assert trained[8:] == ["cove"]
    assert set(OmegaConf.load(tmp_path / "search" / "best.yaml").pairs.deepfm) == {"none", "cove"}
    assert "the pairs of a model do not have the same number of trials yet" in summary.read_text()


def test_a_search_that_cannot_go_well_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(name: str, given: list[str], log: Path, *_: object, stop: Event, **__: object) -> int:
        log.write_text("error: no such data\n")
        return 2

    monkeypatch.setattr(trials_module, "run_program", train)
    with pytest.raises(
        TrainingError, match=r"deepfm/none: all 3 trials failed, .*the last with: no such data\. See .*cell\.log"
    ):
        run_search(arguments(tmp_path, "trials=9"), "x")
    assert not (tmp_path / "search" / "best.yaml").exists(), "a grid could take it"


def search_of(
    folder: Path, monkeypatch: pytest.MonkeyPatch, outcomes: list[tuple[list[float], int, str]], trials: int
) -> tuple[list[dict[str, Any]], str]:
    """Trials of one pair whose trainings log these validation values, exit with these codes and print these texts."""
    left = iter(outcomes)

    def train(name: str, given: list[str], log: Path, *_: object, **__: object) -> int:
        values, code, printed = next(left)
        records = [{"kind": "validation", "epoch": e, "step": e, "auc": v} for e, v in enumerate(values, 1)]
        (log.parent / "log.jsonl").write_text("".join(to_json(record) + "\n" for record in records))
        log.write_text(printed)
        if code == 0:
            (log.parent / "summary.json").write_text("{}")
        return code

    monkeypatch.setattr(trials_module, "run_program", train)
    run_search(arguments(folder, f"trials={trials}", 'only=["*/none"]', "startup_trials=9"), "x")
    rows = pq.read_table(folder / "search" / "trials.parquet").to_pylist()
    return rows, (folder / "search" / "summary.md").read_text()


DIVERGED = "epoch 1 ...\nerror (rank 1): lost another rank\nerror (rank 0): loss not finite at step 12 (loss)\nkilled\n"


def test_a_trial_that_diverged_failed_for_that_reason_and_is_never_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even with a good epoch before; nor is one whose metric was never defined. Both count as trials."""
    outcomes = [
        ([0.6], 0, ""),
        ([0.9, math.nan], 2, DIVERGED),
        ([math.nan], 0, ""),
        ([math.inf], 0, ""),
        ([0.7], 0, ""),
    ]
    rows, summary = search_of(tmp_path, monkeypatch, outcomes, trials=5)
    assert [row["state"] for row in rows] == ["complete", "failed", "failed", "failed", "complete"]
    undefined = "auc was defined in no epoch"
    assert [row["reason"] for row in rows] == [
        None, "loss not finite at step 12 (loss)", undefined, undefined, None,
    ]  # fmt: skip
    assert [row["value"] for row in rows] == [0.6, None, None, None, 0.7]
    assert "| 5 of 5 | 2 complete, 3 failed |" in summary
    assert "failed trials count as trials, and are never the best" in summary
    assert "- deepfm/none/trial_0001: loss not finite at step 12 (loss)" in summary
    assert OmegaConf.load(tmp_path / "search" / "best.yaml").pairs.deepfm.none.value == 0.7


def test_of_a_search_whose_trials_all_failed_nothing_is_the_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it ends just then or is started again when nothing is left to do."""
    for _ in range(2):
        with pytest.raises(TrainingError, match=r"deepfm/none: all 2 trials failed, so it has no best settings"):
            search_of(tmp_path, monkeypatch, [([0.9], 2, DIVERGED), ([math.nan], 0, "")], trials=2)
        assert not (tmp_path / "search" / "best.yaml").exists()
        assert "| 2 of 2 | 2 failed | missing | missing |" in (tmp_path / "search" / "summary.md").read_text()
