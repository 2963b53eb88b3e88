"""Preparation of small files: what is written, in which order, and that it is complete or absent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError, OutputError
from data_pipeline.parquet_files import row_groups
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.writer import dense_statistics
from data_pipeline.schema import SPLITS, Categorical, Schema
from tests.unit.data.prepare_helpers import (
    pairs,
    prepare_custom,
    read_decoded,
    read_split,
    some_rows,
    write_csv,
    write_parquet,
)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write_csv(tmp_path / "raw.csv", some_rows())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_each_users_rows_are_split_in_time_order(tmp_path, raw):
    schema = prepare_custom(raw, tmp_path / "out")
    decoded = read_decoded(tmp_path / "out")
    expected = {"train": range(16), "validation": range(16, 18), "test": range(18, 20)}
    for split, steps in expected.items():
        pairs_of_split = {(u, i) for u, i, _, time in some_rows() if time in steps}
        assert set(pairs(decoded[split])) == pairs_of_split
        assert schema.splits[split].rows == len(decoded[split]) == len(pairs_of_split)
    labels = {(u, i): label for u, i, label, _ in some_rows()}
    assert all(row["label"] == labels[row["user_id"], row["item_id"]] for rows in decoded.values() for row in rows)


def test_ids_seen_in_training_come_first_in_order_of_the_original(tmp_path, raw):
    schema = prepare_custom(raw, tmp_path / "out")
    assert schema.entity("user") == Categorical("user_id", num_ids=5, num_seen=5, role="user")
    assert schema.entity("item") == Categorical("item_id", num_ids=24, num_seen=16, role="item")
    ids = pq.read_table(tmp_path / "out/ids/item_id.parquet")
    assert ids["original_id"].to_pylist() == [*range(100, 116), *range(116, 119), *range(200, 205)]


def test_files_have_the_documented_types_and_row_groups(tmp_path, raw):
    schema = prepare_custom(raw, tmp_path / "out", row_group_size=65_536)
    assert Schema.load(tmp_path / "out") == schema
    for split in SPLITS:
        files = [pq.ParquetFile(tmp_path / "out" / file) for file in schema.splits[split].files]
        expected = {"user_id": pa.int64(), "item_id": pa.int64(), "label": pa.float32()}
        assert all(dict(zip(f.schema_arrow.names, f.schema_arrow.types, strict=True)) == expected for f in files)
        assert sum(f.metadata.num_rows for f in files) == schema.splits[split].rows
    train = [pq.ParquetFile(tmp_path / "out" / file) for file in schema.splits["train"].files]
    assert [f.num_row_groups for f in train] == [16, 11]  # 80 rows: row groups of ceil(80 / 32) = 3, 16 per file
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*SPLITS, "ids", "schema.json", "report.json"}


def test_row_group_size_is_kept_where_there_are_enough_rows(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", some_rows(users=40, per_user=50))  # 1,600 training rows
    schema = prepare_custom(raw, tmp_path / "out", row_group_size=30)
    sizes = [
        file.metadata.row_group(number).num_rows
        for file in (pq.ParquetFile(tmp_path / "out" / f) for f in schema.splits["train"].files)
        for number in range(file.num_row_groups)
    ]
    assert sizes == [30] * 53 + [10]


def test_train_is_shuffled_and_the_others_are_sorted_by_user_and_time(tmp_path, raw):
    prepare_custom(raw, tmp_path / "out")
    users = [row["user_id"] for row in read_split(tmp_path / "out", "train")]
    assert users != sorted(users)
    times = {(u, i): time for u, i, _, time in some_rows()}
    for split in ("validation", "test"):
        order = [(user, times[user, item]) for user, item in pairs(read_decoded(tmp_path / "out")[split])]
        assert order == sorted(order)


def test_ties_in_time_keep_the_order_of_the_file(tmp_path):
    items = np.random.default_rng(0).permutation(20_000).tolist()
    raw = write_csv(tmp_path / "raw.csv", [(1, item, item % 2, place // 2_000) for place, item in enumerate(items)])
    prepare_custom(raw, tmp_path / "out")
    decoded = read_decoded(tmp_path / "out")
    assert [row["item_id"] for row in decoded["validation"] + decoded["test"]] == items[16_000:]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_order(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", [(f"u{k % 37}", f"i{k % 101}", k % 2, k // 3) for k in range(3_000)])
    for output, seed in (("a", 3), ("b", 3), ("c", 4)):
        prepare_custom(raw, tmp_path / output, seed=seed)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    first, other = (read_split(tmp_path / output, "train") for output in "ac")
    assert first != other
    assert sorted(pairs(first)) == sorted(pairs(other))


def test_the_report_has_the_counts_of_table_1(tmp_path, raw):
    prepare_custom(raw, tmp_path / "out", seed=2)
    report = Report.load(tmp_path / "out")
    assert report == Report(
        name="small",
        source=str(raw),
        seed=2,
        split="user_time",
        rows_read=100,
        rows_dropped={},
        duplicate_pairs=0,
        rows={"train": 80, "validation": 10, "test": 10},
        users=5,
        items=24,
        interactions=50,
        samples=100,
        density=100 / (5 * 24),
    )
    assert report.summary()["density"] == "83.3333%"


def test_counts_are_compared_with_the_published_ones(tmp_path, raw):
    prepare_custom(raw, tmp_path / "out")
    report = replace(Report.load(tmp_path / "out"), published={"users": 5, "items": 1_024})
    assert report.differences() == ["24 items instead of 1,024"]
    summary = report.summary()
    assert (summary["users"], summary["items"]) == ("5, as published", "24; published: 1,024")
    assert summary["samples"] == "100"


def test_repeated_pairs_are_counted_and_kept(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", [*some_rows(), (10, 100, 1, 50), (10, 100, 0, 51)])
    prepare_custom(raw, tmp_path / "out")
    report = Report.load(tmp_path / "out")
    assert (report.duplicate_pairs, report.samples, report.density) == (2, 102, 100 / (5 * 24))


def test_features_keep_their_names_and_a_null_category_is_an_id(tmp_path):
    rows = some_rows()
    city = [None if k % 10 == 0 else f"city{k % 3}" for k in range(len(rows))]
    age = [20.0 + k % 7 for k in range(len(rows))]
    columns = dict(zip(("user", "item", "label", "time"), zip(*rows, strict=True), strict=True))
    raw = write_parquet(tmp_path / "raw.parquet", columns | {"city": city, "Age": age, "constant": [0.1] * len(rows)})
    schema = prepare_custom(raw, tmp_path / "out", categorical=("city",), dense=("Age", "constant"))

    assert schema.categorical[2] == Categorical("city", num_ids=4, num_seen=4)
    decoded = read_decoded(tmp_path / "out")
    known = {(u, i): (c, a) for (u, i, _, _), c, a in zip(rows, city, age, strict=True)}
    read = {(r["user_id"], r["item_id"]): (r["city"], r["Age"]) for split in decoded.values() for r in split}
    assert read == known
    assert list(decoded["train"][0]) == ["user_id", "item_id", "city", "Age", "constant", "label"]
    train = [row["Age"] for row in decoded["train"]]
    assert schema.dense[0].mean == pytest.approx(np.mean(train))
    assert schema.dense[0].std == pytest.approx(np.std(train))
    assert schema.dense[1].std == 1.0  # a constant column must not be divided by rounding


def test_an_existing_output_is_refused_unless_overwritten(tmp_path, raw):
    prepare_custom(raw, tmp_path / "out")
    before = contents(tmp_path / "out")
    with pytest.raises(DataError, match=r"out: already exists\. Pass overwrite=true"):
        prepare_custom(raw, tmp_path / "out", seed=1)
    assert contents(tmp_path / "out") == before


def test_overwrite_replaces_only_a_prepared_folder(tmp_path, raw):
    before = prepare_custom(raw, tmp_path / "out")
    more = write_csv(tmp_path / "more.csv", some_rows(users=6))
    again = prepare_custom(more, tmp_path / "out", overwrite=True)
    assert Schema.load(tmp_path / "out") == again
    assert again.splits["train"].rows > before.splits["train"].rows
    (tmp_path / "home").mkdir()
    (tmp_path / "home/letter.txt").write_text("dear")
    with pytest.raises(DataError, match="not a prepared data set"):
        prepare_custom(raw, tmp_path / "home", overwrite=True)
    assert (tmp_path / "home/letter.txt").read_text() == "dear"
    assert {p.name for p in tmp_path.iterdir()} == {"raw.csv", "more.csv", "out", "home"}


def test_nothing_is_left_when_writing_fails(tmp_path, raw, monkeypatch):
    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(Report, "save", fail)
    with pytest.raises(OutputError, match=r"out: no space left on the disk of .*\. Free space"):
        prepare_custom(raw, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["raw.csv"]


def test_a_failed_overwrite_leaves_the_old_data(tmp_path, raw):
    prepare_custom(raw, tmp_path / "out")
    before = contents(tmp_path / "out")
    bad = write_csv(tmp_path / "bad.csv", [(1, 2, 3, 4)])
    with pytest.raises(DataError):
        prepare_custom(bad, tmp_path / "out", overwrite=True)
    assert contents(tmp_path / "out") == before


def test_dense_statistics_are_stable_for_a_mean_far_from_zero(tmp_path):
    values = (1e6 + np.random.default_rng(0).standard_normal(5_000)).astype(np.float32)
    for number, part in enumerate((values[:100], values[100:])):
        pq.write_table(pa.table({"x": part}), tmp_path / f"{number}.parquet", row_group_size=333)
    dense = dense_statistics([tmp_path / "0.parquet", tmp_path / "1.parquet"], "x")
    assert dense.mean == pytest.approx(values.astype(np.float64).mean(), rel=1e-12)
    assert dense.std == pytest.approx(values.astype(np.float64).std(), rel=1e-9)


def test_row_groups_cut_any_batches_into_one_size():
    batches = [pa.record_batch({"x": list(range(a, b))}) for a, b in ((0, 2), (2, 2), (2, 11), (11, 13))]
    reader = pa.RecordBatchReader.from_batches(batches[0].schema, batches[:1] + batches[2:])
    groups = list(row_groups(reader, 4))
    assert [len(group) for group in groups] == [4, 4, 4, 1]
    assert pa.concat_tables(groups)["x"].to_pylist() == list(range(13))


def test_a_broken_report_is_named(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"name": 1}))
    with pytest.raises(DataError, match=r"report\.json: not a report"):
        Report.load(tmp_path)
