"""Files that cannot be read: the message states the actual cause."""

from __future__ import annotations

import gzip
import tempfile
from pathlib import Path

import pytest

from data_pipeline.errors import DataError
from data_pipeline.preparation.delimited import OnInvalid
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


@pytest.mark.parametrize("line", ["2,3,4", '2,"3', "2,\xe9"])
def test_invalid_lines_at_the_end_of_a_large_file_are_not_lost(tmp_path, line):
    """The file is longer than the blocks that DuckDB reads, and the last block has no valid line."""
    path = tmp_path / "raw.csv"
    path.write_text("a,b\n" + f"1,{'x' * 100_000}\n" * 80 + f"{line}\n" * 6, encoding="latin-1")
    with pytest.raises(DataError, match=r"raw\.csv: .*cannot be read"):
        read_csv(path, "error")
    rows, dropped = read_csv(path, "drop")
    assert (len(rows), dropped) == (80, {"malformed CSV line": 6})  # an unclosed quote joins a line with the next


def read_csv(
    path: Path, on_invalid: OnInvalid, columns: tuple[str, ...] = ("a", "b")
) -> tuple[list[tuple], dict[str, int]]:
    """Return the rows in the order of the file, and what was left out."""
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_workspace(Path(scratch), memory_gb=1, seed=0, on_progress=print) as workspace,
    ):
        source = read_files(workspace, [path], columns, on_invalid, "")
        return workspace.query(f"SELECT {', '.join(columns)} FROM raw ORDER BY rowid"), source.dropped


@pytest.mark.parametrize("on_invalid", ["error", "drop"])
@pytest.mark.parametrize("line", ['"1000,7,0', '1000,7,"0'])
@pytest.mark.parametrize("length", [1, 700])  # of a field: the joined lines have 0.8 MB, or 42 MB
def test_a_quote_that_is_never_closed_does_not_hide_the_rest_of_the_file(tmp_path, length, line, on_invalid):
    lines = [f"{row},7,{'x' * length}" for row in range(60_000)]
    lines[1000] = line
    path = tmp_path / "raw.csv"
    path.write_text("\n".join(["a,b,c", *lines]) + "\n")
    with pytest.raises(DataError, match=r"raw\.csv: after data row 1000, a quote that is not closed") as caught:
        read_csv(path, on_invalid)
    assert "on_invalid" not in str(caught.value)


@pytest.mark.parametrize("joined", [2, 5_000])  # DuckDB keeps the first 10,000 bytes of invalid rows
@pytest.mark.parametrize("ends", [('"{},7,0', '{},7,0"'), ('{},"7,0', '{},"7",0'), ('{},"7,0', '{},7"x,"0\n"')])
@pytest.mark.parametrize("name", ["raw.csv", "raw.csv.gz"])
def test_every_line_of_a_row_that_a_quote_joins_is_counted(tmp_path, name, ends, joined):
    lines = [f"{row},7,0" for row in range(30_000)]
    places = (3, 9_000, 20_000)
    for first in places:
        lines[first] = ends[0].format(first)
        lines[first + joined - 1] = ends[1].format(first + joined - 1)
    text = "\n".join(["a,b,c", *lines[:9_000], "", *lines[9_000:]]).encode() + b"\n"
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    rows, dropped = read_csv(tmp_path / name, "drop", ("a", "c"))
    left_out = {first + k for first in places for k in range(joined)}
    assert rows == [(str(row), "0") for row in range(30_000) if row not in left_out]
    assert dropped == {"malformed CSV line": len(left_out) + len(places) * ends[1].count("\n")}


@pytest.mark.parametrize("on_invalid", ["error", "drop"])
def test_text_with_line_breaks_is_read_in_files_of_many_blocks(tmp_path, on_invalid):
    path, note = tmp_path / "raw.csv", 'two\nlines, "quoted"\n' * 16
    write_csv(path, [(row, note, row % 2) for row in range(60_000)], ("a", "note", "b"))
    assert path.stat().st_size > 18e6
    assert read_csv(path, on_invalid) == ([(str(row), str(row % 2)) for row in range(60_000)], {})


@pytest.mark.parametrize(
    "header", [b"user,item,label,time", b"\xef\xbb\xbfuser,item,label,time", b"user,item,label,time\n\n"]
)
def test_a_header_line_without_rows_is_a_file_without_rows(tmp_path, header):
    write_csv(tmp_path / "b.csv", some_rows())
    assert error(tmp_path, header, "a.csv").endswith("a.csv: no rows. Check data.source")
    schema = prepare_custom(tmp_path / "*.csv", tmp_path / "out")
    assert sum(split.rows for split in schema.splits.values()) == 100


@pytest.mark.parametrize("on_invalid", ["error", "drop"])
@pytest.mark.parametrize(
    ("content", "kind", "command"),
    [
        ('[{"user": 1}, {"user": 2}]', "a JSON array", "jq -c .[]"),
        ('\n[\n{"user": 1},\n{"user": 2}\n]\n', "a JSON array", "jq -c .[]"),
        ('{\n  "user": 1\n}\n{\n  "user": 2\n}\n', "JSON over several lines", "jq -c ."),
    ],
)
def test_json_that_is_not_one_object_a_line(tmp_path, content, kind, command, on_invalid):
    message = error(tmp_path, content.encode(), "raw.json", on_invalid=on_invalid)
    path = tmp_path / "raw.json"
    assert message == f"{path}: by its first bytes this is {kind}. Write one object per line: {command} {path}"


@pytest.mark.parametrize("line", ["1", '{"user": 1', '{"user": "' + "x" * (1 << 25) + '"}'])
def test_errors_of_json_lines_name_no_setting_of_duckdb(tmp_path, line):
    good = '{"user": 1, "item": 2, "label": 1, "time": 3}\n'
    message = error(tmp_path, (good + line + "\n").encode(), "raw.jsonl")
    assert "Try" not in message and "auto_detect" not in message and ".." not in message
    assert ("data.on_invalid=drop" in message) != ("Write one object per line" in message)
