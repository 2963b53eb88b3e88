"""Ids that somebody else encoded: described in place, streamed as they are, and refused where they are no ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cove_dist.commands import prepare as command
from cove_dist.inference.frequent_items import most_frequent
from data_pipeline.datasets.encoded import Encoded
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.errors import DataError
from data_pipeline.id_tables import read_original_ids
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader

SIZES = {"train": (60, 40), "validation": (20,), "test": (30,)}


def table(split: str, rows: int, seed: int, **columns: Any) -> pa.Table:
    """Rows sorted by user; the types are those of another pipeline."""
    rng = np.random.default_rng([seed, len(split)])
    return pa.table(
        {
            "uid": pa.array(np.sort(rng.integers(0, 12, rows)), pa.int32()),
            "iid": pa.array(rng.integers(0, 25 if split == "train" else 30, rows), pa.uint16()),
            "genre": pa.array(rng.integers(0, 9, rows), pa.int64()),
            "price": pa.array(rng.normal(5, 2, rows), pa.float64()),
            "clicked": pa.array(rng.integers(0, 2, rows).astype(bool)),
            "unused": ["x"] * rows,
        }
        | columns
    )


@pytest.fixture(params=[True, False], ids=["statistics", "no statistics"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    for split, sizes in SIZES.items():
        (tmp_path / "mine" / split).mkdir(parents=True)
        for number, rows in enumerate(sizes):
            path = tmp_path / "mine" / split / f"{number}.parquet"
            pq.write_table(table(split, rows, number), path, write_statistics=request.param, row_group_size=17)
    return tmp_path / "mine"


def encoded(folder: Path, **settings: Any) -> Encoded:
    columns = {"user": "uid", "item": "iid", "label": "clicked", "categorical": ("genre",), "dense": ("price",)}
    return Encoded(source=str(folder), **columns | settings)


def describe(folder: Path, overwrite: bool = False, **settings: Any) -> Schema:
    return prepare(encoded(folder, **settings), folder, name="mine", overwrite=overwrite)


def read(folder: Path, split: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((folder / split).glob("*.parquet"))])


def test_files_are_described_and_streamed_without_a_change(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
    schema = describe(folder)
    assert {path: path.read_bytes() for path in before} == before
    tables = {split: read(folder, split) for split in SIZES}
    for column, ids in (("uid", "user"), ("iid", "item")):
        assert schema.entity(ids).num_ids == 1 + max(max(each[column].to_pylist()) for each in tables.values())
        assert schema.entity(ids).num_seen == 1 + max(tables["train"][column].to_pylist())
    assert schema.dense[0].mean == pytest.approx(np.mean(tables["train"]["price"].to_pylist()))
    assert read_original_ids(folder, "iid").to_pylist() == list(range(schema.entity("item").num_ids))
    for split, rows in tables.items():
        batches = list(build_loader(folder, Schema.load(folder), split, 8, group_by_user=split != "train"))
        assert [user for batch in batches for user in batch.users.tolist()] == rows["uid"].to_pylist()
        assert [item for batch in batches for item in batch.items.tolist()] == rows["iid"].to_pylist()
        assert [bool(label) for batch in batches for label in batch.labels] == rows["clicked"].to_pylist()
        genres = [id for batch in batches for id in batch.ids["genre"].values().tolist()]
        assert genres == np.minimum(rows["genre"].to_pylist(), schema.categorical[2].num_seen).tolist()
        price = np.concatenate([batch.dense[:, 0].numpy() for batch in batches])
        standardized = (np.array(rows["price"].to_pylist()) - schema.dense[0].mean) / schema.dense[0].std
        np.testing.assert_allclose(price, standardized, rtol=1e-5, atol=1e-6)
    report = Report.load(folder)
    assert report.rows == {"train": 100, "validation": 20, "test": 30}
    assert report.summary()["interactions (label 1)"] == "not counted"


def test_items_with_the_most_clicks_are_the_most_frequent_whatever_the_type_of_labels(folder: Path) -> None:
    schema = describe(folder)
    rows = read(folder, "train")
    clicked = rows.filter(rows["clicked"])["iid"].to_numpy()
    counts = np.bincount(clicked, minlength=schema.entity("item").num_seen)
    assert most_frequent(folder, schema, 5).tolist() == np.argsort(-counts, kind="stable")[:5].tolist()


def test_the_command_writes_into_the_folder_of_the_files(folder: Path, tmp_path: Path) -> None:
    columns = ["user=uid", "item=iid", "label=clicked", "categorical=[genre]"]
    command.run(["data=encoded", f"source={folder}", *columns])
    assert Schema.load(folder).described
    with pytest.raises(DataError, match=r"output = .*other: encoded data stay where they are"):
        command.run(["data=encoded", f"source={folder}", *columns, f"output={tmp_path / 'other'}"])


def test_a_description_is_written_again_but_never_replaced_by_other_data(folder: Path) -> None:
    describe(folder)
    with pytest.raises(DataError, match=r"has a schema\.json already\. Pass overwrite=true"):
        describe(folder)
    assert describe(folder, overwrite=True, dense=()).dense == ()
    files = sorted(folder.rglob("*"))
    with pytest.raises(DataError, match="preparation did not write them, so it is not overwritten"):
        prepare(Synthetic(users=9, items=9, rows=200), folder, name="small", overwrite=True)
    assert sorted(folder.rglob("*")) == files


def test_a_file_altered_after_its_description_is_refused(folder: Path) -> None:
    describe(folder)
    pq.write_table(table("train", 60, 7), folder / "train" / "0.parquet")
    with pytest.raises(DataError, match=r"train/0\.parquet: "):
        build_loader(folder, Schema.load(folder), "train", 8)


BAD = {
    "null id": ({"uid": pa.array([None] + [1] * 29, pa.int32())}, r"column 'uid' has 1 null values"),
    "negative id": ({"iid": pa.array([-4] + [1] * 29, pa.int32())}, r"column 'iid' has the type int32, but uint16 in"),
    "negative id of the same type": ({"uid": pa.array([-4] + [1] * 29, pa.int32())}, "column 'uid' has the value -4"),
    "lists": ({"genre": [[1]] * 30}, "column 'genre' has the type list<.*>, but it must be of encoded ids"),
    "text": ({"uid": ["a"] * 30}, "column 'uid' has the type string, but it must be of encoded ids"),
    "unsorted": ({"uid": pa.array([5] + [1] * 29, pa.int32())}, "expected rows sorted by user"),
    "real label": ({"clicked": ["yes"] * 30}, "column 'clicked' has the type string, but it must be of numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_an_encoded_file_is_named(folder: Path, case: str) -> None:
    columns, message = BAD[case]
    path = folder / "test" / "0.parquet"
    statistics = pq.read_metadata(path).row_group(0).column(0).is_stats_set
    pq.write_table(table("test", 30, 0, **columns), path, write_statistics=statistics)
    with pytest.raises(DataError, match=rf"test/0\.parquet.*{message}"):
        describe(folder)
    assert not (folder / "schema.json").exists()


def test_missing_files_and_columns_are_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.test = x/\*: no such file in .*Correct data\.test"):
        describe(folder, test="x/*")
    with pytest.raises(DataError, match=r"no column 'who'\. The columns are: uid, iid"):
        describe(folder, user="who")
    assert set(describe(folder, validation="none/*").splits) == {"train", "test"}


def test_lists_are_described_and_share_the_table_of_another_column(folder: Path) -> None:
    rng = np.random.default_rng(0)
    lists: dict[str, list[list[int]]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        rows = pq.read_table(file)
        listed = {"before": rng.integers(0, 40, (len(rows), 3)), "tags": rng.integers(0, 6, (len(rows), 2))}
        cut = {name: [each[: i % 4].tolist() for i, each in enumerate(values)] for name, values in listed.items()}
        for name, values in cut.items():
            rows = rows.append_column(name, pa.array(values, pa.list_(pa.int32())))
            lists.setdefault(f"{name} {file.parent.name}", []).extend(values)
        pq.write_table(rows, file)
    schema = describe(folder, lists=("before", "tags"), list_vocabularies={"before": "iid"})
    item, before, tags = schema.entity("item"), *schema.categorical[-2:]
    in_training = [max(map(max, filter(None, lists[f"{name} train"]))) for name in ("before", "tags")]
    assert item.num_seen == before.num_seen == 1 + max(max(read(folder, "train")["iid"].to_pylist()), in_training[0])
    assert (before.table_name, before.max_length, before.num_ids) == ("iid", 3, item.num_ids)
    assert (tags.table_name, tags.max_length, tags.num_seen) == ("tags", 2, 1 + in_training[1])
    assert sorted(path.stem for path in (folder / "ids").iterdir()) == ["genre", "iid", "tags", "uid"]
    batches = [batch.ids["before"] for batch in build_loader(folder, Schema.load(folder), "train", 8)]
    found = [entries.tolist() for each in batches for entries in each.to_dense()]
    assert found == lists["before train"]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[1, None]], "column 'before' has 60 null values; lists hold whole numbers from 0"),
        ([[1], [-2]], "column 'before' has the value -2"),
        ([["a"]], "column 'before' has the type list<.*>, but it must be of lists of encoded ids"),
    ],
)
def test_lists_that_are_no_ids_are_named(folder: Path, lists: list[list[Any]], message: str) -> None:
    for file in sorted(folder.rglob("*.parquet")):
        rows = pq.read_table(file)
        pq.write_table(rows.append_column("before", pa.array([lists[i % len(lists)] for i in range(len(rows))])), file)
    with pytest.raises(DataError, match=message):
        describe(folder, lists=("before",))


def with_columns(folder: Path, **columns: Any) -> None:
    """Write every file again with further columns, of a function of its rows each."""
    for split, sizes in SIZES.items():
        for number, rows in enumerate(sizes):
            added = {name: values(np.random.default_rng(number), rows) for name, values in columns.items()}
            pq.write_table(table(split, rows, number, **added), folder / split / f"{number}.parquet", row_group_size=17)


def test_weights_and_several_labels_are_streamed(folder: Path) -> None:
    with_columns(
        folder,
        liked=lambda rng, rows: rng.integers(0, 2, rows).astype(np.int8),
        importance=lambda rng, rows: rng.random(rows).astype(np.float64) * 3,
    )
    schema = describe(folder, label=("clicked", "liked"), weight="importance")
    assert (schema.label, schema.weight) == ("clicked", "importance")
    learned = replace(Schema.load(folder), learned=("liked", "clicked"))
    for split in SIZES:
        rows, batches = read(folder, split), list(build_loader(folder, learned, split, 8, group_by_user=False))
        labels = np.concatenate([batch.labels.numpy() for batch in batches])
        weights = np.concatenate([batch.sample_weights.numpy() for batch in batches])
        expected = np.column_stack([rows["liked"], rows["clicked"], rows["importance"]])
        found = np.column_stack([labels, weights])
        assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.astype(np.float32).tolist()))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            lambda rng, rows: rng.random(rows) - 0.5,
            r"0\.parquet, row group 0: column 'w': values from -0\.\d+ to 0\.\d+, but",
        ),
        (
            lambda rng, rows: [None, *[1.0] * (rows - 1)],
            "column 'w': 1 nulls, but weights are finite numbers of at least 0",
        ),
        (lambda rng, rows: [0.0] * rows, "column 'w': all weights of the train split are 0, so that no row counts"),
        (lambda rng, rows: [np.inf, *[1.0] * (rows - 1)], "column 'w': values from 1.0 to inf, but weights are finite"),
        (lambda rng, rows: [1.0, np.nan, *[1.0] * (rows - 2)], r"0\.parquet, row 2: column 'w': nan, but weights are"),
        (lambda rng, rows: ["1"] * rows, "column 'w' has the type string, but it must be of numbers"),
    ],
    ids=["negative", "null", "zeros", "infinite", "nan", "text"],
)
def test_weights_that_are_none_are_named(folder: Path, weights: Any, message: str) -> None:
    with_columns(folder, w=weights)
    with pytest.raises(DataError, match=message):
        describe(folder, weight="w")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": ()}, r"data\.label = \[\]: names no column"),
        ({"label": ("clicked", "clicked")}, "column 'clicked': data.label names it twice"),
        ({"weight": "price"}, "column 'price': data.weight and data.dense both name it"),
    ],
)
def test_columns_with_two_roles_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        encoded(Path("mine"), **settings)


def test_a_description_has_no_steps_to_resume(folder: Path) -> None:
    with pytest.raises(DataError, match="resume = true: encoded data are described in one step"):
        prepare(encoded(folder), folder, name="mine", resume=True)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (lambda rng, rows: [2, *[0] * (rows - 1)], "column 'y': values from 0 to 2, but labels are 0 and 1"),
        (lambda rng, rows: [-1.0, *[1.0] * (rows - 1)], "column 'y': values from -1.0 to 1.0, but labels are 0 and 1"),
        (lambda rng, rows: [None, *[1] * (rows - 1)], "column 'y': 1 nulls, but labels are 0 and 1"),
        (
            lambda rng, rows: [*[1.0] * (rows - 1), np.nan],
            r"\.parquet, row \d+: column 'y': nan, but labels are 0 and 1",
        ),
    ],
    ids=["two", "negative", "null", "nan"],
)
def test_labels_that_are_none_are_named_before_training(folder: Path, labels: Any, message: str) -> None:
    with_columns(folder, y=labels)
    with pytest.raises(DataError, match=message):
        describe(folder, label="y")
