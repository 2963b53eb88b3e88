"""An unfinished grid: its tables after every cell."""

from __future__ import annotations

import logging
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cove_dist.errors import ConfigError, TrainingError
from cove_dist.experiments import runner
from cove_dist.experiments.cells import CellFailed
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import Cell, cells_of
from cove_dist.experiments.program import Outcome, run_experiment
from tests.component.experiments.grids import small_grid, write_cell, write_grid

ONE_MODEL = ("only=['deepfm/none']", "seeds=[0,1,2]")


class Computer:
    """Stands in for training: notes the tables that a cell finds, then leaves what a finished cell leaves."""

    def __init__(self, folder: Path, broken: str = "") -> None:
        self.folder, self.broken = folder, broken
        self.found: list[str] = []

    def __call__(self, cell: Cell, *_: object, replace: bool) -> bool:
        tables = self.folder / "tables.md"
        self.found.append(tables.read_text() if tables.is_file() else "")
        if cell.name == self.broken:
            raise CellFailed("log\nerror: diverged", "diverged")
        write_cell(cell, {"auc": 0.7 + cell.seed / 10, "logloss": 0.5})
        return True


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, computer: Computer, *overrides: str) -> Outcome:
    monkeypatch.setattr(runner, "compute", computer)
    return run_experiment(file_arguments("grid", [str(write_grid(folder)), *overrides]), "x")


def test_tables_are_written_after_every_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computer = Computer(tmp_path / "runs")
    outcome = run(tmp_path, monkeypatch, computer, *ONE_MODEL, "picture=dots")
    assert [f"{n} of 3 |" in text for n, text in enumerate(computer.found)] == [False, True, True]
    assert computer.found[0] == ""
    assert "| deepfm | none | 0.7000 | 0.5000 | 1 of 3 |" in computer.found[1]
    assert "- deepfm/none/seed_2: missing" in computer.found[2]
    assert "![" not in computer.found[2], "pictures come at the end"
    names = {path.name for path in outcome.folder.iterdir() if path.is_file()}
    assert names == {
        *(f"dots_test.{kind}" for kind in ("png", "pdf", "svg")),
        "results.parquet",
        "runs.zip",
        "tables.md",
        "tables.tex",
    }
    assert "![" in (outcome.folder / "tables.md").read_text()
    assert len(pq.read_table(outcome.folder / "results.parquet")) == 3 * 2


def test_a_failed_cell_is_in_the_tables_that_the_next_one_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computer = Computer(tmp_path / "runs", broken="deepfm/none/seed_1")
    with pytest.raises(TrainingError, match="1 of 3 cells failed: deepfm/none/seed_1"):
        run(tmp_path, monkeypatch, computer, *ONE_MODEL)
    assert "2 of 3 cells:\n\n- deepfm/none/seed_1: missing\n- deepfm/none/seed_2: missing" in computer.found[2]


def test_what_is_to_be_replaced_is_in_no_table_before_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cell in cells_of(small_grid(tmp_path, *ONE_MODEL)):
        write_cell(cell, {"auc": 0.1, "logloss": 0.9})
    computer = Computer(tmp_path / "runs")
    run(
        tmp_path,
        monkeypatch,
        computer,
        *ONE_MODEL,
        "changed=retrain",
        'models.deepfm=["model=deepfm","model.dropout=0.3"]',
    )
    assert "| deepfm | none | 0.7000 | 0.5000 | 1 of 3 |" in computer.found[1]
    assert "| deepfm | none | 0.7500 ± 0.0707 | 0.5000 ± 0.0000 | 2 of 3 |" in computer.found[2]


def test_tables_that_cannot_be_written_yet_do_not_stop_the_cells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Silent(Computer):
        def __call__(self, cell: Cell, *arguments: object, replace: bool) -> bool:
            super().__call__(cell, *arguments, replace=replace)
            (cell.folder / "log.jsonl").write_text("")
            return True

    computer = Silent(tmp_path / "runs")
    with caplog.at_level(logging.WARNING), pytest.raises(ConfigError, match="no records"):
        run(tmp_path, monkeypatch, computer, *ONE_MODEL)
    assert len(computer.found) == 3
    assert caplog.text.count("tables so far not written: ") == 3
