"""Files with different types of a column: read as a type that represents both without loss, or refused by name."""

from __future__ import annotations

import json
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
from tests.unit.data.prepare_helpers import pairs, prepare_custom, read_decoded, write_csv, write_parquet

N = 20


def part(number: int, **columns: object) -> dict[str, object]:
    """Make rows of the users 1 and 2 with increasing times over the parts; ``columns`` replace those of the part."""
    return {
        "user": [1, 2] * (N // 2),
        "item": [100 * number + row for row in range(N)],
        "label": [0, 1, 1, 0] * (N // 4),
        "time": [1000 * number + row for row in range(N)],
    } | columns


def prepare_parts(folder: Path, parts: list[dict[str, object]], **settings: object) -> list[dict]:
    """Prepare one Parquet file per part and return all rows."""
    for name, columns in zip("abcdef", parts, strict=False):
        write_parquet(folder / f"{name}.parquet", columns)
    prepare_custom(folder / "*.parquet", folder / "out", **settings)
    return [row for rows in read_decoded(folder / "out").values() for row in rows]


def test_a_rating_is_not_rounded_to_the_type_of_the_first_file(tmp_path):
    parts = [part(1, rating=[3] * N), part(2, rating=[3.5, 4.0] * (N // 2))]
    rows = prepare_parts(tmp_path, parts, label=None, rating="rating", threshold=4)
    assert {row["item_id"]: row["label"] for row in rows} == {
        **{100 + row: 0 for row in range(N)},
        **{200 + row: row % 2 for row in range(N)},
    }


@pytest.mark.parametrize("kinds", [("float32",), ("float64",), ("float32", "float64"), ("float64", "float32")])
def test_a_rating_equal_to_the_threshold_has_label_1_in_every_type(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    ratings = [pa.array([4.1, 4.0] * (N // 2), kind) for kind in kinds]
    parts = [part(number, rating=rating) for number, rating in enumerate(ratings, start=1)]
    rows = prepare_parts(tmp_path, parts, label=None, rating="rating", threshold=4.1)
    assert {(row["item_id"] % 2, row["label"]) for row in rows} == {(0, 1.0), (1, 0.0)}


def test_an_invalid_label_is_refused_for_any_type_of_the_first_file(tmp_path):
    with pytest.raises(
        DataError, match=r"b\.parquet: column 'label': label is not 0 or 1 .* first '0\.7' in data row 1"
    ):
        prepare_parts(tmp_path, [part(1), part(2, label=[0.7] * N)])


@pytest.mark.parametrize("first", [int, float])
def test_ids_written_as_whole_floats_are_the_same_ids(tmp_path, first):
    users = [1, 2] * (N // 2)
    other = float if first is int else int
    parts = [part(1, user=list(map(first, users))), part(2, user=list(map(other, users)))]
    assert {row["user_id"] for row in prepare_parts(tmp_path, parts)} == {1, 2}


def test_ids_that_are_not_whole_numbers_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"b\.parquet: column 'item': id is not a whole number in 1 row, first '1\.5'"):
        prepare_parts(tmp_path, [part(1), part(2, item=[1.5, *map(float, range(N - 1))])])


def test_ids_that_a_float_cannot_represent_are_refused(tmp_path):
    large = 2**53 + 1
    with pytest.raises(
        DataError, match=rf"a\.parquet: .* the value {large}, which the type DOUBLE of .*b\.parquet cannot represent"
    ):
        prepare_parts(tmp_path, [part(1, item=[large, *range(N - 1)]), part(2, item=[float(row) for row in range(N)])])
    single = tmp_path / "single"
    single.mkdir()
    with pytest.raises(DataError, match="may have rounded to another id"):
        prepare_parts(single, [part(1, item=[float(2**54), *map(float, range(N - 1))])])


@pytest.mark.parametrize("other", ["int64", "float64"])
def test_float32_ids_are_refused_beyond_its_whole_numbers_next_to_files_of_other_types(
    tmp_path: Path, other: str
) -> None:
    large, few = [2**24 + 2 * row for row in range(N)], list(range(N))
    rows = prepare_parts(tmp_path, [part(1, item=pa.array(few, "float32")), part(2, item=pa.array(large, other))])
    assert {row["item_id"] for row in rows} == {*few, *large}
    refused = tmp_path / "refused"
    refused.mkdir()
    with pytest.raises(DataError, match=r"a\.parquet: .*'item': id beyond 16777216, which .* FLOAT .* 19 rows"):
        prepare_parts(refused, [part(1, item=np.float32(large)), part(2, item=pa.array(few, other))])


def test_rounded_times_are_warned_of(tmp_path: Path) -> None:
    seconds = pa.array(np.float32([1_700_000_000 + 1000 * row for row in range(N)]))
    write_parquet(tmp_path / "a.parquet", part(1, time=seconds))
    prepare_custom(tmp_path / "a.parquet", tmp_path / "out")
    warned = json.loads((tmp_path / "out" / "report.json").read_text())["warnings"]
    assert any("times of the type FLOAT beyond 16777216 are rounded" in warning for warning in warned)


@pytest.mark.parametrize(
    ("first", "other"), [(pa.list_(pa.int32()), pa.list_(pa.int64())), (pa.list_(pa.null()), pa.list_(pa.int64()))]
)
def test_lists_widen_like_their_entries(tmp_path: Path, first: pa.DataType, other: pa.DataType) -> None:
    few = [[]] * N if first.value_type == pa.null() else [[1]] * N
    parts = [part(1, tags=pa.array(few, first)), part(2, tags=pa.array([[2**40]] * N, other))]
    rows = prepare_parts(tmp_path, parts, lists=("tags",))
    assert {row["item_id"] // 100: list(row["tags"]) for row in rows} == {1: few[0], 2: [2**40]}


def test_timestamps_of_any_unit_are_read_together(tmp_path: Path) -> None:
    moments = [datetime(2024, 1, 1, 1, minute) for minute in range(N)]
    for number, unit in enumerate(("s", "ms", "us"), start=1):
        table = pa.table(part(number, time=pa.array(moments, pa.timestamp(unit))))
        with pa.ipc.new_file(tmp_path / f"{unit}.arrow", table.schema) as file:
            file.write_table(table)
    prepare_custom(tmp_path / "*.arrow", tmp_path / "out", split="time")
    found = read_decoded(tmp_path / "out")
    assert {row["item_id"] % 100 for row in found["test"]} == {18, 19}


def test_narrow_and_unsigned_numbers_widen(tmp_path):
    small, large = pa.array([1, 2] * (N // 2), pa.int8()), pa.array([2**62, 7] * (N // 2), pa.uint64())
    rows = prepare_parts(tmp_path, [part(1, user=small), part(2, user=large), part(3, user=[1, 2] * (N // 2))])
    assert {row["user_id"] for row in rows} == {1, 2, 7, 2**62}


def test_files_of_dates_and_of_timestamps_keep_the_time_of_day(tmp_path):
    dates, moments = [date(2024, 1, 1)] * N, [datetime(2024, 1, 1, 1, minute) for minute in range(N)]
    parts = [part(1, time=dates), part(2, time=moments)]
    prepare_parts(tmp_path, parts, split="time")
    assert [row["item_id"] for row in read_decoded(tmp_path / "out")["test"]] == [216, 218, 217, 219]


def test_a_column_without_values_takes_the_type_of_the_others(tmp_path):
    parts = [part(1, city=pa.nulls(N)), part(2, city=["x"] * N)]
    rows = prepare_parts(tmp_path, parts, categorical=("city",))
    assert {row["item_id"] // 100: row["city"] for row in rows} == {1: None, 2: "x"}


def test_categories_written_as_whole_floats_with_nulls_are_whole_numbers(tmp_path):
    parts = [part(1, city=[1, 2] * (N // 2)), part(2, city=[1.0, None] * (N // 2))]
    assert {row["city"] for row in prepare_parts(tmp_path, parts, categorical=("city",))} == {1, 2, None}


@pytest.mark.parametrize(
    ("first", "other", "types"),
    [
        ([1] * N, ["1"] * N, "BIGINT, .* VARCHAR"),
        ([1] * N, [datetime(2024, 1, 1)] * N, "BIGINT, .* TIMESTAMP"),
        (["2024-01-01"] * N, [date(2024, 1, 1)] * N, "VARCHAR, .* DATE"),
        ([Decimal("1234567890123456789.5")] * N, [0.5] * N, r"DECIMAL\(20,1\), .* DOUBLE"),
        ([[1]] * N, [1] * N, r"BIGINT\[\], .* BIGINT"),
    ],
)
def test_types_without_a_common_type_are_refused_by_file_and_type(tmp_path, first, other, types):
    pattern = rf"a\.parquet: column 'x' has the type {types}; no type represents both without loss"
    with pytest.raises(DataError, match=pattern.replace(", .*", r", but in .*b\.parquet it has the type")):
        prepare_parts(tmp_path, [part(1, x=first), part(2, x=other)], categorical=("x",))


def test_a_dense_column_of_decimals_and_floats_is_read_exactly(tmp_path):
    parts = [part(1, price=[Decimal("0.25")] * N), part(2, price=[0.5] * N), part(3, price=[3] * N)]
    rows = prepare_parts(tmp_path, parts, dense=("price",))
    assert {row["item_id"] // 100: row["price"] for row in rows} == {1: 0.25, 2: 0.5, 3: 3.0}


def test_the_common_type_is_logged(tmp_path, caplog):
    with caplog.at_level("INFO"):
        prepare_parts(tmp_path, [part(1), part(2, label=[0.0, 1.0] * (N // 2))])
    assert "column 'label': BIGINT in" in caplog.text and "reading it as DOUBLE" in caplog.text


@pytest.mark.parametrize(
    ("one", "other"), [("1", "1.0"), ("1.0", "1"), ("17", "17.00"), ("u1", "u1 "), (" 5", "5"), ("-0", "-0.0")]
)
def test_one_id_with_two_spellings_is_refused(tmp_path, one, other):
    users = [one if row % 3 else other for row in range(2 * N)]
    rows = [(user, 100 + row, row % 2, row) for row, user in enumerate(users)]
    source = write_csv(tmp_path / "raw.csv", rows)
    with pytest.raises(DataError, match=r"column 'user': .* in data row 1 of .* and .* row 2 of .*two spellings"):
        prepare_custom(source, tmp_path / "out")


def test_ids_that_differ_in_leading_zeros_are_kept_with_a_warning(tmp_path, caplog):
    rows = [("007" if row % 3 else "7", 100 + row, row % 2, row) for row in range(2 * N)]
    with caplog.at_level("INFO"):
        prepare_custom(write_csv(tmp_path / "raw.csv", rows), tmp_path / "out")
    assert "'7' in data row 1 of" in caplog.text and "are kept as two values" in caplog.text
    users = {user for split in read_decoded(tmp_path / "out").values() for user, _ in pairs(split)}
    assert users == {"7", "007"}


def test_text_of_several_files_is_typed_as_one(tmp_path):
    write_csv(tmp_path / "a.csv", [(1, row, row % 2, row) for row in range(N)])
    write_csv(tmp_path / "b.csv", [("u", row, row % 2, row + 0.5) for row in range(N)])
    prepare_custom(tmp_path / "*.csv", tmp_path / "out")
    ids = pq.read_table(tmp_path / "out/ids/user_id.parquet")["original_id"].to_pylist()
    assert ids == ["1", "u"]
