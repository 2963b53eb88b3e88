"""Files and folders are complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_pipeline.files import replaced_file
from data_pipeline.preparation.output import prepared_folder


def test_a_folder_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with prepared_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
        assert (tmp_path / "out" / "old").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_unchanged_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(OSError, match="broken"), prepared_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
        raise OSError("broken")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/old"]


def test_a_file_is_absent_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="no space left"), replaced_file(tmp_path / "out") as file:
        file.write_text("half")
        raise OSError("no space left")
    assert not list(tmp_path.iterdir())
