"""A user and items on a line, the files of a ready-made split, and categories of one's own items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.custom import Custom
from data_pipeline.datasets.user_lines import UserLines
from data_pipeline.errors import DataError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from tests.unit.data.prepare_helpers import NAMES, pairs, read_decoded, some_rows, write_csv

ROWS = some_rows()
COLUMNS = {"user": "user", "item": "item", "label": "label", "time": "time"}


def error(data: Any, output: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare(data, output, name="small")
    assert not output.exists()
    return str(caught.value)


def refused(make: Any, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        make(**settings)
    return str(caught.value)


@pytest.mark.parametrize(
    "form",
    ["{u} {0} {1} {2} {3}", "{u}\t{0}\t{1} {2}  {3} ", "{u}\t[{0}, {1},{2},{3}]", "{u}\t['{0}', \"{1}\", '{2}','{3}']"],
)
def test_both_forms_of_a_line_give_the_same_rows(tmp_path: Path, form: str) -> None:
    lines = [form.format(*[(u * 3 + i) % 11 for i in range(4)], u=f"u{u}") for u in range(20)]
    (tmp_path / "mine.txt").write_text("\n".join([*lines, "v", "w\t[]"]) + "\n")
    prepare(UserLines(file=str(tmp_path / "mine.txt"), ordered=True, candidates=0), tmp_path / "out", name="small")
    decoded = read_decoded(tmp_path / "out")
    assert dict(pairs(decoded["test"])) == {f"u{u}": (u * 3 + 3) % 11 for u in range(20)}
    assert dict(pairs(decoded["validation"])) == {f"u{u}": (u * 3 + 2) % 11 for u in range(20)}
    assert len(decoded["train"]) == 40


def test_a_line_of_neither_form_is_refused_by_its_number_or_dropped(tmp_path: Path) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("".join(f"u{u}\t[{u}, {u + 1}, {u + 2}]\n" for u in range(3, 12)) + "x\t[1, 2\n")
    data = {"file": str(file), "ordered": True, "candidates": 0}
    message = error(UserLines(**data), tmp_path / "out")
    assert "a line with brackets is not of the form user<TAB>[item, item, …]" in message
    assert r"first 'x\t[1, 2' in data row 10" in message
    prepare(UserLines(**data, on_invalid="drop"), tmp_path / "out", name="small")
    assert sum(Report.load(tmp_path / "out").rows_dropped.values()) == 2  # both items of the line


def test_lines_in_the_files_of_a_split_keep_it(tmp_path: Path) -> None:
    for part, items in (("train", "1 2 3"), ("valid", "4"), ("test", "5")):
        (tmp_path / f"{part}.txt").write_text(
            "".join(f"u{u} {items}\n" for u in range(4)) + "z 9\n" * (part == "train")
        )
    files = {"train": str(tmp_path / "train.txt"), "test": str(tmp_path / "test.txt")}
    data = UserLines(file=None, **files, validation_file=str(tmp_path / "valid.txt"), ordered=False, candidates=0)
    prepare(data, tmp_path / "out", name="small")
    decoded = read_decoded(tmp_path / "out")
    assert sorted(pairs(decoded["train"])) == sorted([(f"u{u}", i) for u in range(4) for i in (1, 2, 3)] + [("z", 9)])
    assert sorted(pairs(decoded["test"])) == [(f"u{u}", 5) for u in range(4)]
    prepare(
        UserLines(file=None, **files, ordered=False, candidates=0, validation="leave_one_out"),
        tmp_path / "taken",
        name="small",
    )
    assert Report.load(tmp_path / "taken").rows == {"train": 9, "validation": 4, "test": 4}


@pytest.fixture
def split_files(tmp_path: Path) -> dict[str, str]:
    parts = {"train": ROWS[:60], "validation_file": ROWS[60:80], "test": ROWS[80:]}
    (tmp_path / "test").mkdir()
    names = {"train": "train.csv", "validation_file": "valid.csv", "test": "test/part.csv"}
    for key, name in names.items():
        write_csv(tmp_path / name, parts[key])
    return {key: str(tmp_path / name) for key, name in names.items()} | {"test": str(tmp_path / "test")}


def test_the_files_of_a_ready_made_split_keep_it(tmp_path: Path, split_files: dict[str, str]) -> None:
    prepare(Custom(source=None, **split_files, **COLUMNS), tmp_path / "out", name="small")
    decoded = read_decoded(tmp_path / "out")
    for split, rows in (("train", ROWS[:60]), ("validation", ROWS[60:80]), ("test", ROWS[80:])):
        assert sorted(pairs(decoded[split])) == sorted((user, item) for user, item, *_ in rows)
    report = Report.load(tmp_path / "out")
    assert report.split == "given"
    assert report.source == "; ".join(f"{k.removesuffix('_file')}: {path}" for k, path in split_files.items())


def test_files_that_make_no_split_are_refused_before_they_are_read(tmp_path: Path, split_files: dict[str, str]) -> None:
    assert "set data.source=null, or them" in refused(Custom, source="a.csv", train="b.csv", **COLUMNS)
    assert "data.source = null: set it, or data.train and data.test" in refused(Custom, source=None, **COLUMNS)
    assert "Set data.split_column=null" in refused(Custom, source=None, **split_files, **COLUMNS, split_column="x")
    assert "set data.file=null, or them" in refused(UserLines, file="a", test="b", ordered=True)
    twice = Custom(source=None, train=split_files["train"], test=split_files["train"], **COLUMNS)
    assert "train.csv: is in data.train and in test. A file belongs to one split" in error(twice, tmp_path / "out")


ITEMS = sorted({item for _, item, *_ in ROWS})


def write_items(path: Path, names: tuple[str, ...] = ("item", "genre", "year")) -> Path:
    rows = [(item, f"g{item % 3}", 1990 + item % 2) for item in [*ITEMS, 7]]
    if path.suffix == ".csv":
        return write_csv(path, rows, names)
    pq.write_table(pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))), path)
    return path


@pytest.mark.parametrize(("file", "key"), [("items.csv", "item"), ("items.csv", "sku"), ("items.parquet", "item")])
def test_own_items_have_categories(tmp_path: Path, file: str, key: str) -> None:
    raw = write_csv(tmp_path / "raw.csv", ROWS)
    items = write_items(tmp_path / file, (key, "genre", "year"))
    prepare(Custom(source=str(raw), **COLUMNS, categories=str(items)), tmp_path / "out", name="small")
    known = pq.read_table(tmp_path / "out" / "categories" / "item_id.parquet").to_pylist()
    assert {row["original_id"]: (row["genre"], int(row["year"])) for row in known} == {
        item: (f"g{item % 3}", 1990 + item % 2) for item in ITEMS
    }


@pytest.mark.parametrize("kind", [pa.float64(), pa.decimal128(9, 2), pa.string()])
def test_ids_of_categories_may_be_written_with_a_fraction_of_zeros(tmp_path: Path, kind: pa.DataType) -> None:
    """As pandas writes whole numbers in a column with empty values."""
    raw, items = write_csv(tmp_path / "raw.csv", ROWS), tmp_path / "items.parquet"
    ids = pa.array([f"{item}.0" for item in ITEMS])
    if not pa.types.is_string(kind):
        ids = pa.array([float(item) for item in ITEMS]).cast(kind)
    pq.write_table(pa.table({"item": ids, "genre": [f"g{item}" for item in ITEMS]}), items)
    prepare(Custom(source=str(raw), **COLUMNS, categories=str(items)), tmp_path / "out", name="small")
    known = pq.read_table(tmp_path / "out" / "categories" / "item_id.parquet").to_pylist()
    assert {row["original_id"]: row["genre"] for row in known} == {item: f"g{item}" for item in ITEMS}
    assert Report.load(tmp_path / "out").warnings == []


def test_categories_of_no_item_are_warned_of(tmp_path: Path) -> None:
    raw, items = write_csv(tmp_path / "raw.csv", ROWS), tmp_path / "items.csv"
    write_csv(items, [(f"00{item}", "g") for item in ITEMS], ("item", "genre"))
    prepare(Custom(source=str(raw), **COLUMNS, categories=str(items)), tmp_path / "out", name="small")
    [warning] = Report.load(tmp_path / "out").warnings
    assert warning.startswith(
        "categories of item_id: no id of the rows has any. Ids of the rows are such as '100', those"
    )
    assert "such as '00100': write them in one way" in warning


def test_what_is_wrong_with_categories_is_named(tmp_path: Path) -> None:
    raw = str(write_csv(tmp_path / "raw.csv", ROWS, NAMES))

    def data(items: Path, **settings: Any) -> Custom:
        return Custom(source=raw, **COLUMNS, categories=str(items), **settings)

    twice = write_csv(tmp_path / "twice.csv", [(100, "a"), (101, "b"), (100, "c")], ("item", "genre"))
    assert "twice.csv: the item '100' is in more than one row" in error(data(twice), tmp_path / "out")
    prepare(data(twice, on_invalid="drop"), tmp_path / "kept", name="small")
    known = pq.read_table(tmp_path / "kept" / "categories" / "item_id.parquet").to_pylist()
    assert [(row["original_id"], row["genre"]) for row in known] == [(100, "a"), (101, "b")]
    spelled = write_csv(tmp_path / "spelled.csv", [(100, "a"), ("100.0", "b")], ("item", "genre"))
    twice_written = error(data(spelled), tmp_path / "out")
    assert "categories of item_id: 100 is written in two ways, such as 1 and 1.0" in twice_written
    bad = tmp_path / "bad.csv"
    bad.write_text("item,genre\n100,a\n101,b,c\n")
    prepare(data(bad, on_invalid="drop"), tmp_path / "left", name="small")
    assert f"{bad}: 1 malformed lines were left out of the item categories" in Report.load(tmp_path / "left").warnings
    bad.write_text('item,genre\n100,a\n101,"b\n102,c\n')
    for on_invalid in ("error", "drop"):
        message = error(data(bad, on_invalid=on_invalid), tmp_path / "out")
        assert message.startswith(f"{bad}: after data row 1, a quote that is not closed joins the lines that follow")
    alone = write_csv(tmp_path / "alone.csv", [(1,)], ("item",))
    assert "alone.csv: has the column item only" in error(data(alone), tmp_path / "out")
    assert "none.csv: no such file" in error(data(tmp_path / "none.csv"), tmp_path / "out")
    several = error(data(tmp_path / "*e.csv"), tmp_path / "out")
    assert "must be one file, and there are 2, such as alone.csv, twice.csv" in several
