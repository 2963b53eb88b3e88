"""Columns of lists: their entries, their ids and those that they share with another column, and their length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
from data_pipeline.preparation.report import Report
from data_pipeline.schema import Schema
from tests.unit.data.prepare_helpers import (
    NAMES,
    prepare_custom,
    read_decoded,
    some_rows,
    write_csv,
    write_parquet,
)

ROWS = sorted(some_rows(), key=lambda row: row[3])
GENRES = [["a", "b", "c", "d"][: place % 4] for place in range(len(ROWS))]
CLICKED = [[item - 1, 900 + step, item][: step % 4] for _, item, _, step in ROWS]  # 900, … are no items of rows
LISTS: dict[str, Any] = {"lists": ("genres", "clicked"), "list_vocabularies": {"clicked": "item"}}


def columns() -> dict[str, Any]:
    return dict(zip(NAMES, zip(*ROWS, strict=True), strict=True)) | {"genres": GENRES, "clicked": CLICKED}


def by_key(folder: Path, name: str) -> dict[tuple[Any, ...], Any]:
    """A column by user and item, which identify a row here."""
    rows = [row for split in read_decoded(folder).values() for row in split]
    return {(row["user_id"], row["item_id"]): row[name] for row in rows}


def expected(name: str) -> dict[tuple[Any, ...], Any]:
    return {(user, item): value for (user, item, *_), value in zip(ROWS, columns()[name], strict=True)}


def write_text(path: Path, separator: str) -> Path:
    rows = [
        (*row, separator.join(genres), separator.join(map(str, clicked)))
        for row, genres, clicked in zip(ROWS, GENRES, CLICKED, strict=True)
    ]
    return write_csv(path, rows, (*NAMES, "genres", "clicked"))


def write_json(path: Path) -> Path:
    listed = [dict(zip(columns(), row, strict=True)) for row in zip(*columns().values(), strict=True)]
    path.write_text("\n".join(map(json.dumps, listed)) + "\n")
    return path


@pytest.mark.parametrize("form", ["parquet", "|", " ;", "json"])
def test_lists_keep_their_entries_in_order_in_every_format(tmp_path: Path, form: str) -> None:
    settings = LISTS
    if form == "parquet":
        source = write_parquet(tmp_path / "raw.parquet", columns())
    elif form == "json":
        source = write_json(tmp_path / "raw.jsonl")
    else:
        source, settings = write_text(tmp_path / "raw.csv", form), LISTS | {"list_separator": form}
    schema = prepare_custom(source, tmp_path / "out", **settings)
    for name in ("genres", "clicked"):
        assert by_key(tmp_path / "out", name) == expected(name)
    genres, clicked = (column for column in schema.categorical if column.sequence)
    assert (genres.table_name, genres.num_ids, genres.max_length) == ("genres", 3, 3)
    assert (clicked.table_name, clicked.max_length) == ("item_id", 3)
    item = schema.entity("item")
    assert (clicked.num_ids, clicked.num_seen) == (item.num_ids, item.num_seen)
    assert schema.list_separator == settings.get("list_separator", "|")


def test_ids_of_lists_alone_are_in_the_shared_table_and_seen_where_training_has_them(tmp_path: Path) -> None:
    prepare_custom(write_parquet(tmp_path / "raw.parquet", columns()), tmp_path / "out", **LISTS)
    decoded = read_decoded(tmp_path / "out")
    ids = pq.read_table(tmp_path / "out" / "ids" / "item_id.parquet")["original_id"].to_pylist()
    assert set(ids) == {row[1] for row in ROWS} | {entry for each in CLICKED for entry in each}
    of_training = {entry for row in decoded["train"] for entry in (row["item_id"], *row["clicked"])}
    assert ids[: Schema.load(tmp_path / "out").entity("item").num_seen] == sorted(of_training)


def test_the_last_entries_are_kept_and_cut_rows_are_counted(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "raw.parquet", columns())
    schema = prepare_custom(source, tmp_path / "out", list_length=2, **LISTS)
    assert by_key(tmp_path / "out", "clicked") == {key: each[-2:] for key, each in expected("clicked").items()}
    assert [column.max_length for column in schema.categorical if column.sequence] == [2, 2]
    longer = {name: sum(len(each) > 2 for each in columns()[name]) for name in ("genres", "clicked")}
    assert Report.load(tmp_path / "out").lists_cut == longer
    assert Report.load(tmp_path / "out").summary()["lists cut: genres"] == str(longer["genres"])


def test_null_and_empty_text_are_the_empty_list(tmp_path: Path) -> None:
    values = [each or None for each in GENRES]
    column = pa.array(values, pa.list_(pa.string()))
    source = write_parquet(tmp_path / "raw.parquet", columns() | {"genres": column})
    prepare_custom(source, tmp_path / "out", lists=("genres",))
    assert by_key(tmp_path / "out", "genres") == expected("genres")


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({"genres": [["a", None]] * 100}, {}, r"raw.parquet: column 'genres': a list with an empty entry in 100 rows"),
        ({"genres": ["a||b"] * 100}, {}, r"column 'genres': a list with an empty entry in 100 rows, first 'a\|\|b'"),
        ({"genres": ["['a', 'b']"] * 100}, {}, "column 'genres': text with brackets that is no JSON list"),
        (
            {"genres": ["x"] * 3 + ['["a", "b"'] + ["[live] x"] * 96},
            {},
            r"""raw.parquet: column 'genres': .*no JSON list.* in 1 row, first '\["a", "b"' in data row 4""",
        ),
        ({"genres": ['"a", "b"]'] * 100}, {}, "no JSON list.* in 100 rows"),
        ({"genres": ["[1, 2"] * 100}, {}, "no JSON list.* in 100 rows"),
        ({"genres": ['["a]", b"'] * 100}, {}, "no JSON list.* in 100 rows"),
        ({"genres": [3] * 100}, {}, "column 'genres' has the type BIGINT, but it must be lists of ids"),
        (
            {"genres": [[[1]]] * 100},
            {},
            r"has the type BIGINT\[\]\[\], but it must be lists of ids: one value per entry",
        ),
        ({"genres": [[]] * 100}, {}, "column 'genres': every list is empty"),
        ({"clicked": [["x"]] * 100}, {}, "an entry that is not a whole number, as the ids of column 'item' are"),
        ({}, {"list_vocabularies": {"clicked": "label"}}, "list_vocabularies.clicked = label: must be a column with"),
        ({}, {"list_vocabularies": {"tags": "item"}}, "'tags' is not among data.lists: genres, clicked"),
        ({}, {"lists": (), "list_vocabularies": None, "list_length": 3}, "data.list_length = 3: does nothing without"),
        ({}, {"lists": ("genres", "user"), "list_vocabularies": None}, "data.user and data.lists both name it"),
        ({}, {"label": None}, "columns of lists .* are fields of click-through rate models"),
        ({}, {"list_separator": ""}, "data.list_separator must not be empty"),
    ],
)
def test_what_is_no_list_is_refused(
    tmp_path: Path, changed: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    source = write_parquet(tmp_path / "raw.parquet", columns() | changed)
    with pytest.raises(DataError, match=message):
        prepare_custom(source, tmp_path / "out", **LISTS | settings)
