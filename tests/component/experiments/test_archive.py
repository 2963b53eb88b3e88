"""Records of finished cells travel in one file, and make the same tables elsewhere."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from cove_dist.errors import ConfigError
from cove_dist.experiments.archive import ARCHIVE_FILE
from cove_dist.experiments.cells import is_finished, is_stale
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.grid import Cell, GridConfig, cells_of
from cove_dist.experiments.program import run_experiment
from tests.component.experiments.grids import small_grid, write_cell, write_grid

FEW = ("seeds=[0,1]", 'only=["deepfm/*"]')
PROVENANCE = {
    "time": "2026-01-01T00:00:00+00:00",
    "command": ["/home/me/bin/python"],
    "folder": "/home/me",
    "host": "mine",
    "git": {"package": {"commit": "abc", "dirty": False}},
    "data": {"path": "/home/me/data", "fingerprint": "f00"},
}


def finished_cells(folder: Path, count: int) -> tuple[GridConfig, list[Cell]]:
    """A grid, the first of whose cells are finished."""
    grid = small_grid(folder, *FEW)
    cells = cells_of(grid)
    for number, cell in enumerate(cells[:count]):
        write_cell(cell, {"auc": 0.5 + number / 100, "logloss": 0.6})
        (cell.folder / "provenance.json").write_text(json.dumps({"starts": [PROVENANCE]}))
        (cell.folder / "config_history.jsonl").write_text('{"step": 2, "key": "trainer.epochs", "old": 1, "new": 2}\n')
        (cell.folder / "checkpoints").mkdir()
        (cell.folder / "checkpoints" / "weights").write_text("large")
    return grid, cells


def tables(folder: Path, *overrides: str) -> str:
    """Make the tables of the cells that are finished."""
    results = folder / "results"
    given = [str(write_grid(folder)), *FEW, f"results={results}", "tables_only=true", *overrides]
    run_experiment(file_arguments("grid", given), "command")
    return (results / "tables.md").read_text()


def test_records_make_the_same_tables_elsewhere(tmp_path: Path) -> None:
    grid, cells = finished_cells(tmp_path, 3)
    before = tables(tmp_path)
    archive = tmp_path / "results" / ARCHIVE_FILE
    written = archive.read_bytes()
    shutil.rmtree(grid.output)
    assert tables(tmp_path, "restore=true") == before
    assert archive.read_bytes() == written
    assert [is_finished(cell, grid) for cell in cells] == [True] * 3 + [False]
    assert not any(is_stale(cell, grid) for cell in cells), "the restored configuration is the cell's"
    assert (cells[0].folder / "config_history.jsonl").is_file()
    assert not (cells[0].folder / "checkpoints").exists()


def cells_in(archive: Path) -> set[str]:
    with zipfile.ZipFile(archive) as opened:
        return {name.rpartition("/")[0] for name in opened.namelist()}


def test_records_of_other_cells_stay(tmp_path: Path) -> None:
    grid, cells = finished_cells(tmp_path, 3)
    tables(tmp_path)
    archive = tmp_path / "results" / ARCHIVE_FILE
    written, every = archive.read_bytes(), {cell.name for cell in cells[:3]}
    assert cells_in(archive) == every
    tables(tmp_path, 'only=["deepfm/cove"]')
    assert archive.read_bytes() == written, "cells that the call left out"
    shutil.rmtree(grid.output)
    write_cell(cells[0], {"auc": 0.9, "logloss": 0.6})
    tables(tmp_path)
    assert cells_in(archive) == every, "cells of the call that are not on this machine"
    archive.write_bytes(b"no archive")
    tables(tmp_path)
    assert cells_in(archive) == {cells[0].name}


def test_archives_say_nothing_of_the_machine(tmp_path: Path) -> None:
    finished_cells(tmp_path, 1)
    tables(tmp_path)
    with zipfile.ZipFile(tmp_path / "results" / ARCHIVE_FILE) as archive:
        kept = json.loads(archive.read("deepfm/none/seed_0/provenance.json"))
        assert kept == {
            "starts": [{"time": PROVENANCE["time"], "git": PROVENANCE["git"], "data": {"fingerprint": "f00"}}]
        }


def test_what_is_there_is_not_replaced(tmp_path: Path) -> None:
    _, cells = finished_cells(tmp_path, 2)
    tables(tmp_path)
    write_cell(cells[0], {"auc": 0.9, "logloss": 0.6})
    shutil.rmtree(cells[1].folder)
    assert "0.9000" in tables(tmp_path, "restore=true", "seeds=[0]")
    assert (cells[1].folder / "summary.json").is_file()


def test_records_of_another_configuration_are_refused(tmp_path: Path) -> None:
    grid, _ = finished_cells(tmp_path, 1)
    tables(tmp_path)
    shutil.rmtree(grid.output)
    with pytest.raises(ConfigError, match=r"deepfm/none/seed_0: holds a run of another configuration: .*learning_rate"):
        tables(tmp_path, "restore=true", 'models.deepfm=["model=deepfm","trainer.optimizer.learning_rate=0.5"]')


@pytest.mark.parametrize("content", [None, b"no archive"])
def test_without_an_archive(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "results").mkdir()
        (tmp_path / "results" / ARCHIVE_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=r"results/runs\.zip: .*restore=true needs the archive of an earlier run"):
        tables(tmp_path, "restore=true")
