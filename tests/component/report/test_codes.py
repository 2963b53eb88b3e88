"""Codes of a run: which are used, and when they are exported again."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cove_dist.config.composition import compose_yaml
from cove_dist.config.overrides import text_of
from cove_dist.report import codes as module
from cove_dist.report.codes import _export, draw_sizes, load_codes
from cove_dist.report.run_folder import Run, load_run
from data_pipeline.errors import DataError
from tests.checkpoints import write_checkpoint
from tests.component.report.runs import log, random_codes, write_codes, write_run

USERS, ITEMS = list(range(60)), [f"item {i}" for i in range(80)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", tmp_path / "data", log())


@pytest.fixture
def exports(run: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The runs given to the export, which here writes codes of both entities."""
    calls = []

    def export(exported: Run) -> None:
        calls.append(exported.folder)
        write_both(run)

    monkeypatch.setattr(module, "_export", export)
    return calls


def write_both(run: Path) -> None:
    write_codes(run, "user", USERS, random_codes(60, (8, 3)))
    write_codes(run, "item", ITEMS, [[0, 1], [0, 1], [11, 1], [None, None], *[[2, 0]] * 76])


def test_codes_of_ids_that_training_saw(run: Path) -> None:
    write_both(run)
    users, items = load_codes(load_run(run))
    assert (users.entity, items.entity) == ("user", "item")
    assert len(users.codes) == 60
    assert "item 3" not in items.original_ids.to_pylist()
    assert items.codes[2].tolist() == [11, 1]
    assert items.sizes(1).tolist() == [2, 0, 76, *[0] * 8, 1]
    assert items.sizes(2).tolist() == [76, 3, 0, 0]


def test_a_picture_of_their_sizes(run: Path, tmp_path: Path) -> None:
    write_both(run)
    [picture] = draw_sizes(load_codes(load_run(run)), tmp_path)
    assert picture.path.read_bytes().startswith(b"\x89PNG")
    assert "60 users, 79 items" in picture.caption


def complete_checkpoint(run: Path) -> Path:
    return write_checkpoint(run / "checkpoints", 6)


def test_missing_codes_are_exported(run: Path, exports: list[Path]) -> None:
    complete_checkpoint(run)
    assert len(load_codes(load_run(run))) == 2
    assert exports == [run]


@pytest.mark.parametrize(("age", "exported"), [(-100, True), (100, False)])
def test_codes_older_than_the_newest_checkpoint_are_exported(
    run: Path, exports: list[Path], age: int, exported: bool
) -> None:
    write_both(run)
    checkpoint = complete_checkpoint(run)
    now = checkpoint.stat().st_mtime
    for entity, seconds in (("user", 100), ("item", age)):
        for file in (run / "codes" / entity).iterdir():
            os.utime(file, (now + seconds, now + seconds))
    load_codes(load_run(run))
    assert bool(exports) == exported


def test_a_run_without_checkpoints_has_no_codes(run: Path, exports: list[Path]) -> None:
    assert load_codes(load_run(run)) == []
    assert exports == []


def test_codes_of_another_run(run: Path) -> None:
    write_codes(run, "user", USERS, random_codes(60, (8, 3)))
    write_codes(run, "item", ITEMS, [[12, 0]] * 80)
    with pytest.raises(DataError, match="column code_1 has 12 to 12 where the level has 12 codes"):
        load_codes(load_run(run))


def test_codes_of_fewer_levels(run: Path) -> None:
    write_codes(run, "user", USERS, random_codes(60, (8,)))
    write_codes(run, "item", ITEMS, random_codes(80, (12,)))
    with pytest.raises(DataError, match=r"part-00000.parquet: no column code_2; remove .*codes"):
        load_codes(load_run(run))


def test_the_export_is_given_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", tmp_path / "data", log()).rename(tmp_path / "alpha=0.5, first")
    complete_checkpoint(run)
    asked = []

    def export(overrides: list[str]) -> None:
        asked.append(compose_yaml("export", overrides).run)
        write_both(run)

    monkeypatch.setattr("cove_dist.inference.codes.export_codes", export)
    load_codes(load_run(run))
    assert asked == [str(run)]


def test_folders_of_any_name_are_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr("cove_dist.inference.codes.export_codes", given.extend)
    _export(SimpleNamespace(folder=Path("runs/müller, a=b\\c")))
    assert text_of(given[0]) == "runs/müller, a=b\\c"
