"""The data of a run folder, from any working directory and in another folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cove_dist.errors import ConfigError
from cove_dist.tasks.saved_data import find_data, load_run_with_data
from data_pipeline.errors import DataError
from data_pipeline.fingerprint import data_fingerprint
from tests.component.report.runs import write_run


@pytest.fixture
def home(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a training on ``data/mine``; the present one is another."""
    home = tmp_path / "home"
    shutil.copytree(prepared, home / "data" / "mine")
    monkeypatch.chdir(home)
    write_run(home / "run", Path("data/mine"), [])
    record = {"path": str(home / "data" / "mine"), "fingerprint": data_fingerprint("data/mine")}
    starts = [{"data": {"path": "/older", "fingerprint": "older"}}, {"data": record}]
    (home / "run" / "provenance.json").write_text(json.dumps({"starts": starts}))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return home


def found(home: Path, data: str | None = None) -> Path:
    config, folder = load_run_with_data(str(home / "run"), data)
    assert folder == home / "run"
    return Path(config.data.path)


def other_data(folder: Path) -> None:
    """Prepared data with another fingerprint, of which all files are sound."""
    schema = json.loads((folder / "schema.json").read_text())
    (folder / "schema.json").write_text(json.dumps(schema | {"name": "other"}))


def test_a_relative_path_is_meant_where_the_run_was_trained(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(home) == home / "data" / "mine"
    monkeypatch.chdir(home)
    assert found(home) == home / "data" / "mine"
    assert "path: data/mine" in (home / "run" / "config.yaml").read_text()


def test_a_project_that_was_moved_has_its_data_with_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    assert found(tmp_path / "moved") == tmp_path / "moved" / "data" / "mine"


def test_other_data_of_the_same_name_are_not_taken_for_those_of_the_run(home: Path) -> None:
    shutil.copytree(home / "data", "data")
    other_data(Path("data/mine"))
    assert found(home) == home / "data" / "mine"
    shutil.rmtree(home / "data")
    with pytest.raises(ConfigError, match=r"it was trained on other data than .*elsewhere/data/mine has: their finger"):
        found(home)


def test_data_that_were_prepared_again_in_place_are_not_those_of_the_run(home: Path) -> None:
    other_data(home / "data" / "mine")
    with pytest.raises(ConfigError, match=r"it was trained on other data than .*home/data/mine has: their finger"):
        found(home)


def test_data_that_moved_are_named_and_compared(home: Path) -> None:
    (home / "data" / "mine").rename("new")
    places = (
        rf"no schema\.json in .*/elsewhere/data/mine or {home}/data/mine\. Restore them, or name their folder: data"
    )
    with pytest.raises(ConfigError, match=places):
        found(home)
    assert found(home, "new") == Path.cwd() / "new"
    other_data(Path("new"))
    with pytest.raises(ConfigError, match=r"it was trained on other data than .*elsewhere/new has"):
        found(home, "new")
    with pytest.raises(ConfigError, match=r"no schema\.json in .*elsewhere/nowhere\. Restore them"):
        found(home, "nowhere")


def test_a_damaged_copy_is_refused(home: Path) -> None:
    shutil.copytree(home / "data" / "mine", "copy")
    next(Path("copy/train").glob("*.parquet")).unlink()
    with pytest.raises(DataError, match="no such file, but it was prepared"):
        found(home, "copy")


def test_a_run_without_a_record_has_its_data_where_it_names_them(home: Path, tmp_path: Path) -> None:
    (home / "run" / "provenance.json").unlink()
    assert find_data(home / "run", str(home / "data" / "mine")) == home / "data" / "mine"
    with pytest.raises(ConfigError, match=rf"no schema\.json in {tmp_path}/elsewhere/data/mine\. Restore them"):
        found(home)
