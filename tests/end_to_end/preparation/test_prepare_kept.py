"""Ids of earlier data keep table rows in data in which they have no training row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.custom import Custom
from data_pipeline.errors import DataError
from data_pipeline.history import History
from data_pipeline.id_tables import read_original_ids
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from data_pipeline.schema import Schema
from tests.unit.data.prepare_helpers import prepare_custom, read_decoded, some_rows, write_csv, write_parquet

NAMES = ("user", "item", "label", "time", "city")


def write_day(folder: Path, name: str, users: range, first_item: int, text: bool = False) -> Path:
    """Rows of some users, with items from ``first_item`` on; the last item of a user is in no other row."""
    rows = [
        (f"u{user}" if text else user, item + first_item, label, time, f"c{item % 7}")
        for user, item, label, time in some_rows(users=len(users))
        for user in [users[user - 10]]
        if (user * 7 + item) % 4
    ]
    return write_csv(folder / f"{name}.csv", rows, NAMES)


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    prepare_custom(write_day(folder, "yesterday", range(10, 15), 0), folder / "yesterday", categorical=("city",))
    return folder / "yesterday"


@pytest.fixture(scope="module")
def today(yesterday: Path) -> Path:
    raw = write_day(yesterday.parent, "today", range(13, 18), 8)
    prepare_custom(raw, yesterday.parent / "without", categorical=("city",))
    prepare_custom(raw, yesterday.parent / "today", categorical=("city",), keep_ids=str(yesterday))
    return yesterday.parent / "today"


@pytest.mark.parametrize("column", ["user_id", "item_id", "city"])
def test_trained_ids_come_first_then_kept_then_unseen_ones(yesterday: Path, today: Path, column: str) -> None:
    schemas = [Schema.load(folder) for folder in (yesterday, today.parent / "without", today)]
    before, without, now = (next(c for c in schema.categorical if c.name == column) for schema in schemas)
    of_yesterday = read_original_ids(yesterday, column).to_pylist()[: before.num_seen]
    plain, ids = (read_original_ids(folder, column).to_pylist() for folder in (today.parent / "without", today))
    trained = plain[: without.num_seen]
    assert ids[: now.num_trained] == trained
    assert ids[now.num_trained : now.num_seen] == sorted(set(of_yesterday) - set(trained))
    assert now.kept == now.num_seen - without.num_seen
    assert set(ids[now.num_seen :]) == set(plain[without.num_seen :]) - set(of_yesterday)
    assert now.kept > 2 or column == "city"


def test_rows_and_counts_are_those_of_the_new_data(today: Path) -> None:
    assert read_decoded(today) == read_decoded(today.parent / "without")
    plain, kept = Report.load(today.parent / "without"), Report.load(today)
    assert (kept.users, kept.items, kept.density) == (plain.users, plain.items, plain.density)
    columns = Schema.load(today).categorical
    assert kept.kept == {column.name: column.kept for column in columns if column.kept}
    assert {"user_id", "item_id"} <= set(kept.kept)
    assert kept.summary()["kept ids: user_id"] == str(kept.kept["user_id"])


def test_an_id_below_the_least_count_keeps_the_row_that_it_had(yesterday: Path, tmp_path: Path) -> None:
    raw = write_day(tmp_path, "rare", range(13, 18), 8)
    rule = {"categorical": ("city",), "min_count": {"item": 6}, "keep_ids": str(yesterday)}
    item = prepare_custom(raw, tmp_path / "data", **rule).entity("item")
    ids = read_original_ids(tmp_path / "data", "item_id").to_pylist()
    train = [row["item_id"] for row in read_decoded(tmp_path / "data")["train"]]
    rows = {i: train.count(i) for i in ids}
    before = Schema.load(yesterday).entity("item").num_seen
    former = set(read_original_ids(yesterday, "item_id").to_pylist()[:before])
    assert set(ids[: item.num_trained]) == {i for i in ids if rows[i] >= 6 or (rows[i] and i in former)}
    assert any(0 < rows[i] < 6 for i in ids[: item.num_trained])


@pytest.mark.parametrize("sequences", [None, 5])
def test_histories_and_sequences_have_no_kept_ids(tmp_path: Path, sequences: int | None) -> None:
    days = {"first": (range(10, 15), 0), "second": (range(13, 18), 8)}
    keep = None
    for name, day in days.items():
        raw = write_day(tmp_path, name, *day)
        settings = {"implicit": True, "candidates": 0 if sequences else 3, "sequences": sequences, "keep_ids": keep}
        columns = {"user": "user", "item": "item", "label": None, "time": "time"}
        prepare(Custom(source=str(raw), **columns, **settings), tmp_path / f"{name}_data", name="small")
        keep = str(tmp_path / f"{name}_data")
    schema = Schema.load(keep)
    user, item = schema.entity("user"), schema.entity("item")
    assert user.kept == 3 and item.kept > 2
    assert Report.load(keep).users == user.num_ids - user.kept
    if sequences:
        rows = pq.read_table(Path(keep) / "train")
        used = np.concatenate([rows[name].combine_chunks().flatten().to_numpy() for name in ("input", "target")])
        assert used.max() == item.num_trained - 1
    else:
        history = History.load(keep, "train")
        assert len(history) == user.num_ids and history.items.max() == item.num_trained - 1
        assert not np.diff(history.offsets)[user.num_trained : user.num_seen].any()


def test_numbers_become_text_where_the_new_ids_are_text(yesterday: Path, tmp_path: Path) -> None:
    raw = write_day(tmp_path, "text", range(13, 18), 8, text=True)
    prepare_custom(raw, tmp_path / "data", categorical=("city",), keep_ids=str(yesterday))
    user = Schema.load(tmp_path / "data").entity("user")
    ids = read_original_ids(tmp_path / "data", "user_id").to_pylist()
    assert ids[user.num_trained : user.num_seen] == ["10", "11", "12", "13", "14"]


@pytest.mark.parametrize("odd", ["abc", "02138"])  # 02138 is not to become 2138, an id that no row ever had
def test_whole_numbers_of_a_text_file_are_text_where_the_kept_ids_are(tmp_path: Path, odd: str) -> None:
    """Of every column of ids: 17 is the same id as "17"."""
    days = {}
    for day, (users, other) in {"first": ([odd, 17, 18], "a"), "second": ([17, 18, 19], 7)}.items():
        rows = [(u, i if i % 5 else other, i % 2, i, other, f"{other}|{i}") for u in users for i in range(10, 18)]
        raw = write_csv(tmp_path / f"{day}.csv", rows, (*NAMES, "tags"))
        settings = {"categorical": ("city",), "lists": ("tags",), "keep_ids": days.get("first")}
        days[day] = str(tmp_path / day)
        prepare_custom(raw, tmp_path / day, **settings)
    for column in Schema.load(days["second"]).categorical:
        ids = read_original_ids(days["second"], column.table_name).to_pylist()
        assert column.kept >= 1 and all(isinstance(each, str) for each in ids)
    users = read_original_ids(days["second"], "user_id").to_pylist()
    assert users == ["17", "18", "19", odd]
    numbers = {name: [10, 11] * 10 for name in NAMES} | {"label": [0, 1] * 10, "time": list(range(20))}
    write_parquet(tmp_path / "numbers.parquet", numbers)
    with pytest.raises(DataError, match=rf"user_id has the id '{odd}' there, which is no BIGINT"):
        prepare_custom(tmp_path / "numbers.parquet", tmp_path / "out", keep_ids=days["first"])


def test_folders_with_other_columns_are_refused(yesterday: Path, tmp_path: Path) -> None:
    raw = write_day(tmp_path, "other", range(13, 18), 8)
    prepare_custom(raw, tmp_path / "plain")
    with pytest.raises(DataError, match=r"plain: has no ids of city; its columns of ids: user_id, item_id\."):
        prepare_custom(raw, tmp_path / "data", categorical=("city",), keep_ids=str(tmp_path / "plain"))
    with pytest.raises(DataError, match=r"nowhere/schema.json: no such file"):
        prepare_custom(raw, tmp_path / "data", keep_ids=str(tmp_path / "nowhere"))
    assert not (tmp_path / "data").exists()
