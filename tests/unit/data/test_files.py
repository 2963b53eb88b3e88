"""Files and folders are complete or absent."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from data_pipeline.errors import DataError, OutputError
from data_pipeline.files import replaced_file
from data_pipeline.folders import replaced_folder


def test_a_folder_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with replaced_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
        assert (tmp_path / "out" / "old").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_unchanged_after_an_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with pytest.raises(OSError, match="broken"), replaced_folder(tmp_path / "out") as folder:
        (folder / "new").touch()
        raise OSError("broken")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/old"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "of a file without a name"),
        RuntimeError("IO Error: could not write: No space left on device"),
        OSError(errno.EDQUOT, "over the quota"),
    ],
)
def test_a_file_on_a_full_disk_is_named_and_absent(tmp_path: Path, error: Exception) -> None:
    with (
        pytest.raises(OutputError, match=rf"^{tmp_path}/out: no space left on device \(.* GB free\)\. Free"),
        replaced_file(tmp_path / "out") as file,
    ):
        file.write_text("half")
        raise error
    assert not list(tmp_path.iterdir())


def test_other_errors_in_a_file_are_passed_on(tmp_path: Path) -> None:
    for error in (OSError("broken"), DataError("No space left, says a user"), KeyError("x")):
        with pytest.raises(type(error)), replaced_file(tmp_path / "out") as file:
            file.write_text("half")
            raise error
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(OutputError, match=rf"^{tmp_path}/file/out: cannot be written: Not a directory"),
        replaced_file(tmp_path / "file" / "out") as file,
    ):
        file.touch()
