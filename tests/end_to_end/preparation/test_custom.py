"""Formats of a user's own files."""

from __future__ import annotations

import gzip
from dataclasses import fields
from datetime import datetime, timedelta
from importlib import import_module
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from pydantic import TypeAdapter

from cove_dist.config.composition import compose_yaml
from data_pipeline.preparation.dataset import Dataset
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

CONFIGS = Path(__file__).parents[3] / "configs" / "data"
COLUMNS = dict(zip(NAMES, zip(*some_rows(), strict=True), strict=True))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Return the rows that every format below must give."""
    folder = tmp_path_factory.mktemp("plain")
    prepare_custom(write_parquet(folder / "raw.parquet", COLUMNS), folder / "out")
    return read_decoded(folder / "out")


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_delimiters(tmp_path, expected, delimiter):
    prepare_custom(write_csv(tmp_path / "raw.txt", some_rows(), delimiter=delimiter), tmp_path / "out")
    assert read_decoded(tmp_path / "out") == expected


def test_gzip_byte_order_mark_and_windows_line_ends(tmp_path, expected):
    text = write_csv(tmp_path / "raw.csv", some_rows()).read_text().replace("\n", "\r\n")
    with gzip.open(tmp_path / "raw.csv.gz", "wb") as file:
        file.write(b"\xef\xbb\xbf" + text.encode())
    prepare_custom(tmp_path / "raw.csv.gz", tmp_path / "out")
    assert read_decoded(tmp_path / "out") == expected


def test_a_glob_reads_files_in_order_of_their_names(tmp_path, expected):
    rows = some_rows()
    for name, part in (("d", rows[80:]), ("a", rows[:10]), ("c", rows[40:80]), ("b", rows[10:40])):
        write_csv(tmp_path / f"{name}.csv", part)
    prepare_custom(tmp_path / "*.csv", tmp_path / "out")
    assert read_decoded(tmp_path / "out") == expected


def test_a_path_with_brackets_is_not_a_pattern(tmp_path, expected):
    write_csv(tmp_path / "raw1.csv", [(1, 1, 1, 1)])
    prepare_custom(write_csv(tmp_path / "raw[1].csv", some_rows()), tmp_path / "out")
    assert read_decoded(tmp_path / "out") == expected


def test_columns_in_another_order_among_others(tmp_path, expected):
    rows = [("x", label, time, item, user, "y") for user, item, label, time in some_rows()]
    raw = write_csv(tmp_path / "raw.csv", rows, ("note", "clicked", "when", "film", "who", "note"))
    prepare_custom(raw, tmp_path / "out", user="who", item="film", label="clicked", time="when")
    assert read_decoded(tmp_path / "out") == expected


@pytest.mark.parametrize("true, false", [("true", "False"), ("1", "0"), ("1.0", "0.0")])
def test_forms_of_a_label(tmp_path, expected, true, false):
    rows = [(user, item, true if label else false, time) for user, item, label, time in some_rows()]
    prepare_custom(write_csv(tmp_path / "raw.csv", rows), tmp_path / "out")
    assert read_decoded(tmp_path / "out") == expected


def test_a_rating_and_its_threshold(tmp_path, expected):
    raw = write_parquet(tmp_path / "raw.parquet", COLUMNS | {"label": [3.5 if x else 3.0 for x in COLUMNS["label"]]})
    prepare_custom(raw, tmp_path / "out", label=None, rating="label", threshold=3.5)
    assert read_decoded(tmp_path / "out") == expected


@pytest.mark.parametrize("kind", ["timestamp", "date", "seconds", "nanoseconds"])
def test_forms_of_time(tmp_path, expected, kind):
    """Times written as text must not be ordered as text: step 9 comes before step 10."""
    form = {
        "timestamp": lambda step: datetime(2020, 1, 1, 23) + timedelta(hours=step),
        "date": lambda step: (datetime(2020, 1, 1) + timedelta(days=step)).date(),
        "seconds": lambda step: 0.5 * step,
        "nanoseconds": lambda step: 1_700_000_000_000_000_000 + step,  # a float64 cannot represent them exactly
    }[kind]
    rows = [(user, item, label, form(time)) for user, item, label, time in some_rows()]
    prepare_custom(write_csv(tmp_path / "raw.csv", rows), tmp_path / "out")
    assert read_decoded(tmp_path / "out") == expected
    typed = write_parquet(tmp_path / "raw.parquet", COLUMNS | {"time": [row[3] for row in rows]})
    prepare_custom(typed, tmp_path / "typed")
    assert read_decoded(tmp_path / "typed") == expected


@pytest.mark.parametrize(
    "write, ids, originals",
    [
        ("csv", ["7", "12"], [7, 12]),  # whole numbers, in their order
        ("csv", ["007", "12"], ["007", "12"]),  # text that resembles numbers
        ("csv", ["u2", "u1"], ["u1", "u2"]),
        ("parquet", ["7", "12"], ["12", "7"]),  # typed as text, kept as text
        ("parquet", [2**40, 5], [5, 2**40]),
    ],
)
def test_ids_keep_their_type(tmp_path, write, ids, originals):
    users = [ids[k % 2] for k in range(40)]
    columns = {"user": users, "item": list(range(40)), "label": [0, 1] * 20, "time": list(range(40))}
    if write == "csv":
        raw = write_csv(tmp_path / "raw.csv", zip(*columns.values(), strict=True))
    else:
        raw = write_parquet(tmp_path / "raw.parquet", columns)
    prepare_custom(raw, tmp_path / "out")
    assert pq.read_table(tmp_path / "out/ids/user_id.parquet")["original_id"].to_pylist() == originals
    decoded = read_decoded(tmp_path / "out")
    assert sorted(item for rows in decoded.values() for _, item in pairs(rows)) == list(range(40))


def test_without_time_the_split_is_random(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", some_rows(users=20))
    prepare_custom(raw, tmp_path / "out", time=None)
    assert Report.load(tmp_path / "out").split == "random"


def test_a_column_of_splits(tmp_path):
    parts = {f"{user}-{item}": ("test", "train", "validation")[item % 3] for user, item, *_ in some_rows()}
    rows = [(*row, parts[f"{row[0]}-{row[1]}"]) for row in some_rows()]
    raw = write_csv(tmp_path / "raw.csv", rows, (*NAMES, "part"))
    prepare_custom(raw, tmp_path / "out", split_column="part")
    read = {f"{u}-{i}": split for split, rows in read_decoded(tmp_path / "out").items() for u, i in pairs(rows)}
    assert read == parts
    assert Report.load(tmp_path / "out").split == "given"
    prepare_custom(raw, tmp_path / "timed", split_column="part", split="user_time")
    assert Report.load(tmp_path / "timed").rows == {"train": 80, "validation": 10, "test": 10}


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_shipped_configuration_has_exactly_the_keys_of_its_class(path):
    config = OmegaConf.to_container(compose_yaml("prepare", [f"data={path.stem}"]).data)
    module, name = config.pop("_target_").rsplit(".", 1)
    assert (config.pop("name"), config.pop("path")) == (path.stem, f"data/{path.stem}")
    dataset = getattr(import_module(module), name)
    assert set(config) == {field.name for field in fields(dataset)}
    assert isinstance(TypeAdapter(dataset).validate_python(config), Dataset)
