"""Files that cannot be read: the message states the actual cause."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.preparation.read import read_files
from data_pipeline.preparation.workspace import open_workspace
from tests.unit.data.prepare_helpers import prepare_custom, some_rows, write_csv, write_parquet


@pytest.fixture
def text(tmp_path: Path) -> str:
    return write_csv(tmp_path / "source.csv", some_rows()).read_text().replace("\r\n", "\n")


def error(folder: Path, content: bytes, name: str = "raw.csv", **settings: object) -> str:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        prepare_custom(folder / name, folder / "out", **settings)
    assert str(caught.value).startswith(str(folder / name))
    return str(caught.value)


@pytest.mark.parametrize("on_invalid", ["error", "drop"])
def test_mixed_line_ends_are_counted(tmp_path, text, on_invalid):
    lines = text.splitlines()
    content = "\r\n".join(lines[:4]) + "\r\n" + "\n".join(lines[4:]) + "\n"
    message = error(tmp_path, content.encode(), on_invalid=on_invalid)
    assert "its lines end in several ways: 4 in CR LF (Windows) and 97 in LF. Write one line end" in message


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_any_single_line_end_is_read(tmp_path, text, end):
    (tmp_path / "raw.csv").write_bytes(text.replace("\n", end).encode())
    schema = prepare_custom(tmp_path / "raw.csv", tmp_path / "out")
    assert sum(split.rows for split in schema.splits.values()) == 100


def test_text_in_other_encodings(tmp_path, text):
    assert "by its first bytes this is text in UTF-16. Convert it to UTF-8" in error(tmp_path, text.encode("utf-16"))
    late = text + "é,1,1,5\n"
    for content in (late, text * 100 + late):  # in the block that is read with the header line, and after it
        message = error(tmp_path, content.encode("latin-1"))
        assert "UTF-8" in message and "iconv -f LATIN1 -t UTF-8" in message
    header = late.replace("user", "usér").encode("latin-1")
    assert "CSV must be UTF-8" in error(tmp_path, header)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('1,"2,1,5', "Close the quote"),
        ('1,"2"x,1,5', "Close the quote"),
        ("1,2", "Give every line the fields of the header line"),
        ("1,2,1,5,9", "Give every line the fields of the header line"),
    ],
)
def test_lines_that_do_not_fit(tmp_path, text, line, words):
    lines = text.splitlines()
    message = error(tmp_path, "\n".join([*lines[:9], line, *lines[9:]]).encode() + b"\n")
    assert words in message and "data.on_invalid=drop" in message and "corrupt" not in message


def test_an_unknown_delimiter_is_not_reported_as_a_missing_column(tmp_path, text):
    message = error(tmp_path, text.replace(",", ":").encode())
    assert "the header line is one field, 'user:item:label:time', but 4 columns are named" in message
    assert "comma, tab, semicolon or bar" in message


def test_files_whose_name_says_another_format(tmp_path, text):
    parquet = write_parquet(tmp_path / "real.parquet", {"user": [1]}).read_bytes()
    assert "by its first bytes this is a Parquet file" in error(tmp_path, parquet)
    assert "this is compressed by gzip" in error(tmp_path, gzip.compress(text.encode()))
    assert "this is a zip archive" in error(tmp_path, b"PK\x03\x04....")
    assert "cannot be read as gzip" in error(tmp_path, text.encode(), "raw.csv.gz")
    assert "cannot be read as Parquet: its first bytes are b'user,i'" in error(tmp_path, text.encode(), "raw.parquet")


@pytest.mark.parametrize(("line", "lost"), [("2,3,4", 5), ('2,"3', 3), ("2,\xe9", 5)])
def test_invalid_lines_at_the_end_of_a_large_file_are_not_lost(tmp_path, line, lost):
    """The file is longer than the blocks that DuckDB reads, and the last block has no valid line."""
    path = tmp_path / "raw.csv"
    path.write_text("a,b\n" + f"1,{'x' * 100_000}\n" * 80 + f"{line}\n" * 5, encoding="latin-1")
    with (
        open_workspace(tmp_path / "scratch", memory_gb=1, seed=0, on_progress=print) as workspace,
        pytest.raises(DataError, match=r"raw\.csv: .*cannot be read"),
    ):
        read_files(workspace, [path], ["a", "b"], "error", "")
    with open_workspace(tmp_path / "again", memory_gb=1, seed=0, on_progress=print) as workspace:
        source = read_files(workspace, [path], ["a", "b"], "drop", "")
        assert workspace.query("SELECT count(*) FROM raw") == [(80,)]
    assert source.dropped == {"malformed CSV line": lost}  # an unclosed quote joins a line with the next
