"""Playlists from small raw files, compared with a plain reading of them."""

from __future__ import annotations

import os
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.playlists import AotM, Playlists, load_creators
from data_pipeline.errors import DataError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from data_pipeline.schema import SPLITS, Schema
from data_pipeline.streaming.loader import build_loader
from tests.unit.data.playlist_files import raw_playlists, write_release
from tests.unit.data.prepare_helpers import read_split

RULES = {"min_length": 5, "max_length": 16, "min_occurrences": 10}


def plainly_filtered(playlists: dict[int, list[int]]) -> dict[int, list[int]]:
    while True:
        counts = Counter(item for items in playlists.values() for item in items)
        kept = {number: [i for i in items if counts[i] >= 10][:16] for number, items in playlists.items()}
        kept = {number: items for number, items in kept.items() if len(items) >= 5}
        if kept == playlists:
            return kept
        playlists = kept


@pytest.fixture(scope="module")
def playlists() -> dict[int, list[int]]:
    return raw_playlists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, playlists: dict[int, list[int]]) -> Path:
    folder = tmp_path_factory.mktemp("playlists")
    source = write_release(folder / "raw", playlists)
    prepare(Playlists(source=str(source), file="AotM", **RULES), folder / "out", name="playlists", seed=3)
    return folder / "out"


def original(prepared: Path, column: str) -> list[int]:
    return pq.read_table(prepared / "ids" / f"{column}.parquet")["original_id"].to_pylist()


def decoded(prepared: Path, split: str) -> dict[int, tuple[list[int], list[int], int | None]]:
    """Return input, target and owner by original playlist id."""
    playlists, items, owners = (original(prepared, name) for name in ("playlist_id", "item_id", "owner_id"))
    return {
        playlists[row["playlist_id"]]: (
            [items[i] for i in row["input"]],
            [items[i] for i in row["target"]],
            owners[row["owner_id"]],
        )
        for row in read_split(prepared, split)
    }


def test_every_kept_playlist_is_written_once_in_halves(prepared: Path, playlists: dict[int, list[int]]) -> None:
    expected = plainly_filtered(playlists)
    assert len(expected) < len(playlists)
    splits = [decoded(prepared, split) for split in SPLITS]
    found = {number: halves for split in splits for number, halves in split.items()}
    assert sum(len(split) for split in splits) == len(found)
    assert {number: first + rest for number, (first, rest, _) in found.items()} == expected
    assert all(len(rest) - len(first) in (0, 1) for first, rest, _ in found.values())
    assert all(owner == (number % 7 if number > 5 else None) for number, (_, _, owner) in found.items())


def test_splits_have_the_ratios_and_seen_ids_come_first(prepared: Path, playlists: dict[int, list[int]]) -> None:
    schema, n = Schema.load(prepared), len(plainly_filtered(playlists))
    rows = [schema.splits[split].rows for split in SPLITS]
    assert rows == [n * 8 // 10, n * 9 // 10 - n * 8 // 10, n - n * 9 // 10]
    assert schema.label is None
    assert schema.entity("user").name == "playlist_id"
    assert schema.entity("user").num_seen == rows[0]
    item = schema.entity("item")
    trained = {i for first, rest, _ in decoded(prepared, "train").values() for i in first + rest}
    assert {original(prepared, "item_id")[i] for i in range(item.num_seen)} == trained
    lengths = [max(len(row[half]) for split in SPLITS for row in read_split(prepared, split)) for half in
               ("input", "target")]  # fmt: skip
    assert [column.max_length for column in schema.categorical if column.sequence] == lengths == [8, 8]


def test_the_report_counts_every_raw_row(prepared: Path, playlists: dict[int, list[int]]) -> None:
    report, expected = Report.load(prepared), plainly_filtered(playlists)
    kept = [item for items in expected.values() for item in items]
    assert report.rows_read == sum(map(len, playlists.values()))
    assert report.interactions == len(kept) == report.rows_read - sum(report.rows_dropped.values())
    assert (report.sequences, report.items) == (len(expected), len(set(kept)))
    assert report.duplicate_pairs == len(kept) - sum(len(set(items)) for items in expected.values())
    pairs = len(kept) - report.duplicate_pairs
    assert report.density == pytest.approx(pairs / (report.sequences * report.items))
    assert all(report.rows_dropped.values())


def test_sequences_are_streamed_as_jagged_ids_in_order(prepared: Path) -> None:
    schema = Schema.load(prepared)
    rows = {row["playlist_id"]: row for row in read_split(prepared, "train")}
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


def test_unseen_items_have_the_out_of_vocabulary_row(prepared: Path) -> None:
    schema = Schema.load(prepared)
    unseen = schema.entity("item").num_seen
    for split in ("validation", "test"):
        stored = np.concatenate([row["target"] for row in read_split(prepared, split)])
        streamed = [batch.ids["target"].values() for batch in build_loader(prepared, schema, split, 7)]
        assert np.concatenate(streamed).tolist() == np.minimum(stored, unseen).tolist()


def test_kept_owners_are_not_counted(tmp_path: Path, prepared: Path, playlists: dict[int, list[int]]) -> None:
    source = write_release(tmp_path / "raw", playlists)
    (source / "AotM_creator_list.dict").write_bytes(
        pickle.dumps({number: number % 3 for number in playlists}, protocol=0)
    )
    data = Playlists(source=str(source), file="AotM", keep_ids=str(prepared), **RULES)
    schema = prepare(data, tmp_path / "out", name="playlists", seed=3)
    [owners] = [column for column in schema.categorical if column.name == "owner_id"]
    assert (owners.num_ids - owners.kept, Report.load(tmp_path / "out").users) == (3, 3)
    assert owners.kept >= 4


def test_only_the_seed_decides_the_split(tmp_path: Path, playlists: dict[int, list[int]]) -> None:
    source = str(write_release(tmp_path / "raw", playlists))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(Playlists(source=source, file="AotM", **RULES), tmp_path / name, name="playlists", seed=seed)
    a, b, c = (decoded(tmp_path / name, "test") for name in "abc")
    assert a == b != c


def test_counts_that_differ_from_the_published_ones_are_logged_as_a_warning(tmp_path: Path, playlists, caplog) -> None:
    source = write_release(tmp_path / "raw", playlists)
    prepare(AotM(source=str(source), file="AotM", owners=False, **RULES), tmp_path / "out", name="aotm")
    assert "sequences instead of 12,940" in caplog.text
    assert "owner_id" not in {column.name for column in Schema.load(tmp_path / "out").categorical}


def test_files_and_settings_that_cannot_be_used_are_refused(tmp_path: Path, playlists: dict[int, list[int]]) -> None:
    source = write_release(tmp_path / "raw", playlists)
    with pytest.raises(DataError, match=r"contains neither Zhihu\.txt nor Zhihu\.txt\.zip"):
        prepare(Playlists(source=str(source), file="Zhihu", **RULES), tmp_path / "out", name="x")
    with pytest.raises(DataError, match=r"data\.min_length = 9, data\.max_length = 8"):
        Playlists(source=str(source), file="AotM", min_length=9, max_length=8)
    with pytest.raises(DataError, match=r"no playlist is left of .*Lower data\.min_occurrences"):
        rules = RULES | {"min_occurrences": 10_000}
        prepare(Playlists(source=str(source), file="AotM", **rules), tmp_path / "out", name="x")
    (source / "AotM_creator_list.dict").unlink()
    with pytest.raises(DataError, match=r"no such file.*data\.owners=false"):
        prepare(Playlists(source=str(source), file="AotM", **RULES), tmp_path / "out", name="x")
    assert not (tmp_path / "out").exists()


class Harmful:
    def __reduce__(self):
        return os.getcwd, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({1: Harmful()}), r"only dicts of whole numbers are read"),
        (pickle.dumps([1, 2]), r"a pickled list, not a dict"),
        (pickle.dumps({1: "me"}), r"playlist 1 has the owner 'me'"),
        (b"no pickle", r"not a pickled dict"),
        (b"", r"not a pickled dict"),
    ],
)
def test_a_creators_file_cannot_run_code_or_contain_other_values(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "creators.dict"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_creators(path)


def test_a_playlist_on_a_line_gives_the_same_sequences(tmp_path):
    lists = {number: [number * k % 17 for k in range(1, 8)] for number in range(1, 60)}
    (tmp_path / "entries.txt").write_text("".join(f"{p} {item}\n" for p, items in lists.items() for item in items))
    (tmp_path / "lines.txt").write_text("".join(f"{p}\t{items}\n" for p, items in lists.items()))
    for name in ("entries", "lines"):
        rules = {"min_length": 3, "max_length": 6, "min_occurrences": 2, "owners": False}
        data = Playlists(source=str(tmp_path / f"{name}.txt"), file=name, **rules)
        prepare(data, tmp_path / name, name="lists")
    for split in SPLITS:
        assert read_split(tmp_path / "entries", split) == read_split(tmp_path / "lines", split)
    (tmp_path / "lines.txt").write_text("1\t[2, 3]\n2\t[3, 4\n")
    with pytest.raises(DataError, match=r"not of the form playlist<TAB>\[item, item, …\] in 2 rows"):
        prepare(data, tmp_path / "broken", name="lists")


def test_a_line_of_another_form_is_an_error_that_states_the_form(tmp_path: Path) -> None:
    (tmp_path / "AotM.txt").write_text("1 2\n1 3 4\n")
    data = AotM(source=str(tmp_path), file="AotM", owners=False, min_length=2, max_length=9)
    with pytest.raises(DataError) as caught:
        prepare(data, tmp_path / "out", name="aotm")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'AotM.txt'}: cannot be read: Invalid Input Error: CSV Error on Line: 2")
    assert (
        "Every line must be of the form playlist_id<SPACE>item_id, or all of them playlist_id<TAB>[item_id, " in message
    )
