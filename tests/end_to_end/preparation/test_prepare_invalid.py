"""Invalid input of every kind: the message names the file, the column, the value and the count, and what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.custom import Custom
from data_pipeline.errors import DataError
from data_pipeline.preparation.report import Report
from tests.unit.data.prepare_helpers import (
    NAMES,
    pairs,
    prepare_custom,
    read_decoded,
    some_rows,
    write_csv,
    write_parquet,
)

FEATURED = (*NAMES, "city", "age", "part")


def rows_with(**wrong: Any) -> list[list[Any]]:
    """Write valid rows and, as data rows 8 and 9, two with the given columns invalid."""
    rows = [[*row, "town", 30 + k, ("train", "validation", "test")[k % 3]] for k, row in enumerate(some_rows())]
    bad = [dict(zip(FEATURED, rows[k], strict=True)) | wrong for k in (0, 1)]
    return rows[:7] + [list(row.values()) for row in bad] + rows[7:]


def error(source: Path | str, **settings: Any) -> str:
    """Return the message of the error of preparation, which must leave nothing on disk."""
    output = Path(source).parent / "out"
    with pytest.raises(DataError) as caught:
        prepare_custom(source, output, **settings)
    assert not output.exists() and not list(output.parent.glob(".out*"))
    return str(caught.value)


WRONG_VALUES = [
    ("user", None, "null or empty id"),
    ("item", None, "null or empty id"),
    ("user", -3, "negative id"),
    ("item", -1, "negative id"),
    ("label", 2, "label is not 0 or 1"),
    ("label", "maybe", "label is not 0 or 1"),
    ("label", None, "null label"),
    ("time", None, "null time"),
    ("time", "soon", "time is not a number or a timestamp, such as 2019-11-05 17:30:00"),
    ("age", "old", "value is not a finite number"),
    ("age", "nan", "value is not a finite number"),
    ("age", "1e300", "value is not a finite number"),
    ("age", None, "null value"),
    ("part", "trian", "split is not train, validation or test"),
    ("part", None, "split is not train, validation or test"),
]


@pytest.mark.parametrize("column, value, reason", WRONG_VALUES)
def test_invalid_rows_are_refused_or_dropped_and_counted(tmp_path, column, value, reason):
    raw = write_csv(tmp_path / "raw.csv", rows_with(**{column: value}), FEATURED)
    features = {"categorical": ("city",), "dense": ("age",), "split_column": "part"}

    message = error(raw, **features)
    shown = None if value is None else str(value)
    assert message.startswith(f"{raw}: column {column!r}: {reason}")
    assert f"in 2 rows, first {shown!r} in data row 8" in message
    assert "data.on_invalid=drop" in message

    prepare_custom(raw, tmp_path / "out", on_invalid="drop", **features)
    report = Report.load(tmp_path / "out")
    assert report.rows_read == 102
    assert [(key.startswith(f"{column}: {reason}"), count) for key, count in report.rows_dropped.items()] == [(True, 2)]
    kept = [pair for rows in read_decoded(tmp_path / "out").values() for pair in pairs(rows)]
    assert sorted(map(str, kept)) == sorted(str((user, item)) for user, item, *_ in some_rows())


def test_typed_columns_of_parquet_are_checked_too(tmp_path):
    n = 30
    good = {"user": [1] * n, "item": list(range(n)), "label": [1.0] * n, "time": list(range(n)), "age": [1.0] * n}
    for column, value, reason in [
        ("user", -5, "negative id"),
        ("item", None, "null id"),
        ("label", 0.5, "label is not 0 or 1"),
        ("age", float("nan"), "value is not a finite number"),
        ("age", 1e300, "value is not a finite number"),
    ]:
        columns = {name: [value, *values[1:]] if name == column else values for name, values in good.items()}
        message = error(write_parquet(tmp_path / "raw.parquet", columns), dense=("age",))
        assert f"column {column!r}: {reason}" in message and "in 1 row, " in message


@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl"])
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_text_is_no_id_in_any_format(tmp_path, kind, empty):
    """As of users who are not logged in, who would become one user."""
    rows = [(f"u{row[0]}", f"i{row[1]}", *row[2:]) for row in some_rows()]
    rows[7:7] = [(empty, "i100", 1, 3), ("u10", empty, 1, 3), (None, "i100", 1, 3)]
    table, raw = pa.Table.from_pylist([dict(zip(NAMES, row, strict=True)) for row in rows]), tmp_path / f"raw.{kind}"
    if kind == "parquet":
        pq.write_table(table, raw)
    elif kind == "arrow":
        with pa.ipc.new_file(raw, table.schema) as writer:
            writer.write_table(table)
    else:
        raw.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    first, second = error(raw).splitlines()
    assert f"column 'user': null or empty id in 2 rows, first {empty!r} in data row 8" in first
    assert f"column 'item': null or empty id in 1 row, first {empty!r} in data row 9" in second
    prepare_custom(raw, tmp_path / "out", on_invalid="drop")
    report = Report.load(tmp_path / "out")
    assert report.rows_dropped == {"user: null or empty id": 2, "item: null or empty id": 1}
    assert report.users == 5


@pytest.mark.parametrize("null", ["NULL", "null", "\\N", "nan", "NaN", "None", "N/A"])
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_ids_that_look_like_missing_ones_are_warned_of(tmp_path, kind, null):
    rows = [(str(row[0]), *row[1:]) for row in some_rows()]
    rows[7:7] = [(null, 100 + k, 1, k) for k in range(3)]
    write_csv(tmp_path / "raw.csv", rows)
    write_parquet(tmp_path / "raw.parquet", dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True)))
    raw = tmp_path / f"raw.{kind}"
    prepare_custom(raw, tmp_path / "out")
    report = Report.load(tmp_path / "out")
    assert report.users == 6
    assert [each for each in report.warnings if "missing" in each] == [
        f"column 'user': {null!r} in data row 8 of {raw}, of 3 rows with it: it is kept as an id. If it stands for a"
        " missing id, write an empty field, or null, and set data.on_invalid=drop"
    ]


def test_hashed_ids_are_to_be_written_as_text(tmp_path):
    """Half of all hashes of 64 bits are negative or beyond int64: they are not to be dropped."""
    n = 30
    good = {"item": list(range(n)), "label": [k % 2 for k in range(n)], "time": list(range(n))}
    for users, reason in [
        (pa.array([-5] * n), "negative id in 30 rows"),
        (pa.array([2**63 + 5] * n, pa.uint64()), "id outside the range of int64 in 30 rows"),
    ]:
        raw = write_parquet(tmp_path / "raw.parquet", {**good, "user": users})
        message = error(raw)
        assert f"column 'user': {reason}" in message
        assert 'Write a hash, or any id that is not a count, as text, CAST("user" AS VARCHAR); correct other' in message
        write_parquet(tmp_path / "text.parquet", {**good, "user": users.cast(pa.string())})
        prepare_custom(tmp_path / "text.parquet", tmp_path / "text", overwrite=True)
    raw = write_csv(tmp_path / "raw.csv", [(-5, *row[1:]) for row in some_rows()])
    assert "that is not a count, with a letter before it, such as h-5; correct other ids, or leave such" in error(raw)


def test_every_broken_rule_has_a_line_and_a_row_counts_once(tmp_path):
    rows = [*some_rows(), (-1, 5, 7, 0), (1, 5, 7, 0)]
    raw = write_csv(tmp_path / "raw.csv", rows)
    lines = error(raw).splitlines()
    assert ["negative id in 1 row" in lines[0], "not 0 or 1" in lines[1] and "in 1 row" in lines[1]] == [True, True]
    prepare_custom(raw, tmp_path / "out", on_invalid="drop")
    assert list(Report.load(tmp_path / "out").rows_dropped.values()) == [1, 1]


@pytest.mark.parametrize("rating, reason", [("", "null rating"), ("good", "rating is not a finite number")])
def test_a_rating_must_be_a_number(tmp_path, rating, reason):
    raw = write_csv(tmp_path / "raw.csv", rows_with(label=rating), FEATURED)
    assert f"column 'label': {reason}" in error(raw, label=None, rating="label", threshold=1.0)


def test_a_missing_file_and_a_pattern_without_a_match(tmp_path):
    assert error(tmp_path / "nowhere.csv").startswith(f"{tmp_path}/nowhere.csv: no such file. Correct data.source")
    assert "*.parquet: no file matches this pattern" in error(tmp_path / "*.parquet")
    (tmp_path / "folder").mkdir()
    assert "the folder contains no files" in error(tmp_path / "folder")


def test_the_error_of_a_wrong_column_lists_the_columns(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", some_rows())
    assert "no column 'uid'. The columns are: user, item, label, time" in error(raw, user="uid")
    parquet = write_parquet(tmp_path / "raw.parquet", {"user": [1], "item": [1], "label": [1]})
    assert "no column 'time'. The columns are: user, item, label" in error(parquet)


def test_a_file_that_lacks_a_column_is_named_among_many(tmp_path):
    for name, column in (("a", "label"), ("b", "click")):
        write_csv(tmp_path / f"{name}.csv", some_rows(), ("user", "item", column, "time"))
    assert error(tmp_path / "*.csv").startswith(f"{tmp_path}/b.csv: no column 'label'")


def test_the_error_of_an_invalid_row_names_its_file(tmp_path):
    write_csv(tmp_path / "a.csv", some_rows())
    write_csv(tmp_path / "b.csv", [(1, 2, 1, 0), (1, 2, 5, 0)])
    message = error(tmp_path / "*.csv")
    assert message.startswith(f"{tmp_path}/b.csv: column 'label'") and "first '5' in data row 2." in message


def test_names_that_differ_only_in_case_are_refused(tmp_path):
    raw = write_parquet(tmp_path / "raw.parquet", {"user": [1], "User": [2], "item": [1], "label": [1], "time": [1]})
    assert "more than one column 'user'" in error(raw)


def test_truncated_and_corrupt_parquet(tmp_path):
    whole = write_parquet(tmp_path / "whole.parquet", {name: list(range(5_000)) for name in NAMES}).read_bytes()
    truncated, corrupt = tmp_path / "truncated.parquet", tmp_path / "corrupt.parquet"
    truncated.write_bytes(whole[: len(whole) // 2])
    assert error(truncated).startswith(f"{truncated}: cannot be read as Parquet")
    start = pq.ParquetFile(tmp_path / "whole.parquet").metadata.row_group(0).column(2).data_page_offset
    corrupt.write_bytes(whole[:start] + bytes(b ^ 0xFF for b in whole[start : start + 100]) + whole[start + 100 :])
    message = error(corrupt)
    assert message.startswith(f"{corrupt}: cannot be read") and "write it again" in message


def test_empty_files(tmp_path):
    (tmp_path / "nothing.csv").touch()
    assert error(tmp_path / "nothing.csv").startswith(f"{tmp_path}/nothing.csv: the file is empty (0 bytes)")
    assert "header.csv: no rows" in error(write_csv(tmp_path / "header.csv", []))
    types = {"user": pa.int64(), "item": pa.int64(), "label": pa.int64(), "time": pa.int64()}
    pq.write_table(pa.schema(types).empty_table(), tmp_path / "empty.parquet")
    assert "empty.parquet: no rows" in error(tmp_path / "empty.parquet")


def test_no_rows_are_left(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", [(-1, 2, 1, 0)] * 3)
    assert "no rows are left (3 dropped: user: negative id)" in error(raw, on_invalid="drop")


def test_an_empty_split(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", [(user, 1, 1, 0) for user in range(20)])
    message = error(raw)
    assert message.startswith("the validation split is empty: 20 rows, data.split=user_time, data.ratios=[8, 1, 1]")
    assert "another data.split" in message


def test_malformed_csv_lines(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", some_rows())
    lines = raw.read_text().splitlines()
    raw.write_text("\n".join([*lines[:4], "1,2", "3,4,1,5,6,7", *lines[4:]]) + "\n")
    message = error(raw)
    assert message.startswith(f"{raw}: cannot be read") and "Line: 5" in message and "data.on_invalid=drop" in message
    prepare_custom(raw, tmp_path / "out", on_invalid="drop")
    report = Report.load(tmp_path / "out")
    assert (report.rows_dropped, report.rows_read, report.samples) == ({"malformed CSV line": 2}, 102, 100)


def test_files_that_are_not_utf8(tmp_path):
    (tmp_path / "raw.csv").write_bytes("usér,item,label,time\n1,2,1,0\n".encode("latin-1"))
    assert "CSV must be UTF-8" in error(tmp_path / "raw.csv")


@pytest.mark.parametrize(
    "column, values, meaning",
    [
        ("user", [True], "an id"),
        ("label", [[1]], "a label"),
        ("time", [[1]], "a time"),
        ("age", [b"x"], "a dense feature"),
        ("city", [[1, 2]], "a categorical feature"),
        ("part", [1], "a split"),
    ],
)
def test_a_column_of_an_unfit_type(tmp_path, column, values, meaning):
    columns = {"user": [1], "item": [1], "label": [1], "time": [1], "age": [1.0], "city": ["a"], "part": ["test"]} | {
        column: values
    }
    raw = write_parquet(tmp_path / "raw.parquet", columns)
    message = error(raw, dense=("age",), categorical=("city",), split_column="part")
    assert re.search(f"column '{column}' has the type .*, but it must be {meaning}", message)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"label": "a", "rating": "b", "threshold": 3.0}, "set at most one"),
        ({"rating": "b"}, "data.threshold = None: set both"),
        ({"label": "a", "threshold": 1.0}, "data.rating = None"),
        (
            {"label": "a", "categorical": ("x",), "dense": ("X",)},
            "column 'X': data.categorical and data.dense both name it",
        ),
        ({"label": "a", "dense": ("user_id",)}, "column 'user_id': the name is taken"),
        ({"label": "a", "dense": ("a/b",)}, "must not be empty, start with __ or contain a slash"),
        ({"label": "a", "dense": ("rowid",)}, "column 'rowid': the name is taken"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(DataError, match=message):
        Custom(source="x.csv", user="user", item="item", **settings)


@pytest.mark.parametrize("split", ["user_time", "time"])
def test_a_split_by_time_needs_a_time_column(tmp_path, split):
    raw = write_csv(tmp_path / "raw.csv", some_rows())
    assert error(raw, time=None, split=split).startswith(f"data.split = {split}: needs data.time=COLUMN")


def test_a_given_split_needs_a_column(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", some_rows())
    assert error(raw, split="given").startswith("data.split = given: the data have no split of their own")
