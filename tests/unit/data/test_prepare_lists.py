"""Lists to be continued, from small files in their raw form, against a plain reading of them."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.lists import AotM, ItemLists, load_creators
from data_pipeline.errors import DataError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from data_pipeline.schema import SPLITS, Schema
from data_pipeline.streaming.loader import build_loader
from tests.unit.data.list_files import raw_lists, write_release
from tests.unit.data.prepare_helpers import read_split

RULES = {"min_length": 5, "max_length": 16, "min_occurrences": 10}


def plainly_filtered(lists: dict[int, list[int]]) -> dict[int, list[int]]:
    while True:
        counts = Counter(item for items in lists.values() for item in items)
        kept = {number: [i for i in items if counts[i] >= 10][:16] for number, items in lists.items()}
        kept = {number: items for number, items in kept.items() if len(items) >= 5}
        if kept == lists:
            return kept
        lists = kept


@pytest.fixture(scope="module")
def lists() -> dict[int, list[int]]:
    return raw_lists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, lists: dict[int, list[int]]) -> Path:
    folder = tmp_path_factory.mktemp("lists")
    source = write_release(folder / "raw", lists)
    prepare(ItemLists(source=str(source), file="AotM", **RULES), folder / "out", name="lists", seed=3)
    return folder / "out"


def original(prepared: Path, column: str) -> list[int]:
    return pq.read_table(prepared / "ids" / f"{column}.parquet")["original_id"].to_pylist()


def decoded(prepared: Path, split: str) -> dict[int, tuple[list[int], list[int], int | None]]:
    """By original list id: input, target, owner."""
    lists, items, owners = (original(prepared, name) for name in ("list_id", "item_id", "owner_id"))
    return {
        lists[row["list_id"]]: (
            [items[i] for i in row["input"]],
            [items[i] for i in row["target"]],
            owners[row["owner_id"]],
        )
        for row in read_split(prepared, split)
    }


def test_every_list_that_the_rules_keep_is_there_once_in_halves(prepared: Path, lists: dict[int, list[int]]) -> None:
    expected = plainly_filtered(lists)
    assert len(expected) < len(lists)
    splits = [decoded(prepared, split) for split in SPLITS]
    found = {number: halves for split in splits for number, halves in split.items()}
    assert sum(len(split) for split in splits) == len(found)
    assert {number: first + rest for number, (first, rest, _) in found.items()} == expected
    assert all(len(rest) - len(first) in (0, 1) for first, rest, _ in found.values())
    assert all(owner == (number % 7 if number > 5 else None) for number, (_, _, owner) in found.items())


def test_splits_are_in_the_ratio_and_ids_of_training_come_first(prepared: Path, lists: dict[int, list[int]]) -> None:
    schema, n = Schema.load(prepared), len(plainly_filtered(lists))
    rows = [schema.splits[split].rows for split in SPLITS]
    assert rows == [n * 8 // 10, n * 9 // 10 - n * 8 // 10, n - n * 9 // 10]
    assert schema.label is None
    assert schema.entity("user").name == "list_id"
    assert schema.entity("user").num_seen == rows[0]
    item = schema.entity("item")
    trained = {i for first, rest, _ in decoded(prepared, "train").values() for i in first + rest}
    assert {original(prepared, "item_id")[i] for i in range(item.num_seen)} == trained
    lengths = [max(len(row[half]) for split in SPLITS for row in read_split(prepared, split)) for half in
               ("input", "target")]  # fmt: skip
    assert [column.max_length for column in schema.categorical if column.sequence] == lengths == [8, 8]


def test_the_report_counts_every_raw_row(prepared: Path, lists: dict[int, list[int]]) -> None:
    report, expected = Report.load(prepared), plainly_filtered(lists)
    kept = [item for items in expected.values() for item in items]
    assert report.rows_read == sum(map(len, lists.values()))
    assert report.interactions == len(kept) == report.rows_read - sum(report.rows_dropped.values())
    assert (report.lists, report.items) == (len(expected), len(set(kept)))
    assert report.duplicate_pairs == len(kept) - sum(len(set(items)) for items in expected.values())
    assert report.density == pytest.approx(len(kept) / (report.lists * report.items))
    assert all(report.rows_dropped.values())


def test_lists_stream_as_jagged_ids_in_order(prepared: Path) -> None:
    schema = Schema.load(prepared)
    rows = {row["list_id"]: row for row in read_split(prepared, "train")}
    seen = []
    for batch in build_loader(prepared, schema, "train", 32, shuffle=True, workers=2):
        assert len(batch.items) == 0
        assert len(batch) == len(batch.users)
        for half in ("input", "target"):
            jagged = batch.ids[half]
            for number, ids in zip(batch.users.tolist(), jagged.to_dense(), strict=True):
                assert ids.tolist() == rows[number][half]
        seen += batch.users.tolist()
    assert sorted(seen) == sorted(rows)


def test_items_that_training_never_saw_are_looked_up_as_one_row(prepared: Path) -> None:
    schema = Schema.load(prepared)
    unseen = schema.entity("item").num_seen
    for split in ("validation", "test"):
        stored = np.concatenate([row["target"] for row in read_split(prepared, split)])
        streamed = [batch.ids["target"].values() for batch in build_loader(prepared, schema, split, 7)]
        assert np.concatenate(streamed).tolist() == np.minimum(stored, unseen).tolist()


def test_the_seed_alone_decides_the_split(tmp_path: Path, lists: dict[int, list[int]]) -> None:
    source = str(write_release(tmp_path / "raw", lists))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(ItemLists(source=source, file="AotM", **RULES), tmp_path / name, name="lists", seed=seed)
    a, b, c = (decoded(tmp_path / name, "test") for name in "abc")
    assert a == b != c


def test_counts_that_differ_from_the_published_ones_are_warned_of(tmp_path: Path, lists, caplog) -> None:
    source = write_release(tmp_path / "raw", lists)
    prepare(AotM(source=str(source), file="AotM", owners=False, **RULES), tmp_path / "out", name="aotm")
    assert "lists instead of 12,940" in caplog.text
    assert "owner_id" not in {column.name for column in Schema.load(tmp_path / "out").categorical}


def test_files_and_settings_that_cannot_be_used_are_refused(tmp_path: Path, lists: dict[int, list[int]]) -> None:
    source = write_release(tmp_path / "raw", lists)
    with pytest.raises(DataError, match=r"holds neither Zhihu\.txt nor Zhihu\.txt\.zip"):
        prepare(ItemLists(source=str(source), file="Zhihu", **RULES), tmp_path / "out", name="x")
    with pytest.raises(DataError, match=r"data\.min_length = 9, data\.max_length = 8"):
        ItemLists(source=str(source), file="AotM", min_length=9, max_length=8)
    with pytest.raises(DataError, match=r"no list is left of .*Lower data\.min_occurrences"):
        rules = RULES | {"min_occurrences": 10_000}
        prepare(ItemLists(source=str(source), file="AotM", **rules), tmp_path / "out", name="x")
    (source / "AotM_creator_list.dict").unlink()
    with pytest.raises(DataError, match=r"no such file.*data\.owners=false"):
        prepare(ItemLists(source=str(source), file="AotM", **RULES), tmp_path / "out", name="x")
    assert not (tmp_path / "out").exists()


class Harmful:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({1: Harmful()}), r"may name nothing"),
        (pickle.dumps([1, 2]), r"holds a list, not a dict"),
        (pickle.dumps({1: "me"}), r"list 1 has the owner 'me'"),
        (b"no pickle", r"not a pickled dict"),
        (b"", r"not a pickled dict"),
    ],
)
def test_a_creators_file_cannot_run_code_nor_hold_other_things(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "creators.dict"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_creators(path)
