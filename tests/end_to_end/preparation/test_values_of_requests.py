"""Values of requests are the ids that preparation made of the same values, whatever their type."""

from __future__ import annotations

import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cove_dist.inference.context import encode_context
from cove_dist.inference.ids import IdTable, IdTables
from data_pipeline.rare_ids import buckets_of
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from tests.unit.data.prepare_helpers import prepare_custom, some_rows, write_csv

RNG = np.random.default_rng(11)
ROWS = 200
BUCKETS = 50
MOMENT = 1_572_975_000  # 2019-11-05 17:30:00 UTC
EVERY = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}  # a second, in the units of Arrow


def doubles() -> list[float | None]:
    """Numbers of all sizes: random bits, whole numbers, powers of ten and their neighbors."""
    bits = [struct.unpack("d", RNG.bytes(8))[0] for _ in range(ROWS)]
    powers = [sign * 10.0**power for power in range(-8, 24) for sign in (1, -1)]
    known = [1.0, 1.5, 2.0, 0.1, -0.0, 0.5, 2.0**53, 1 / 3, float("nan"), float("inf"), None]
    return (known + powers + bits)[:ROWS]


def times(unit: str) -> list[int]:
    """Whole seconds, tenths of them, and the smallest steps of a unit."""
    steps = [0, 0, EVERY[unit] // 10, 1, EVERY[unit] // 2]
    return [(MOMENT + 3600 * (row % 40)) * EVERY[unit] + steps[row % len(steps)] for row in range(ROWS)]


def singles() -> pa.Array:
    return pa.array([None if each is None else np.float32(each) for each in doubles()], pa.float32())


with np.errstate(over="ignore"):
    VALUES: dict[str, pa.Array] = {
        "of_float64": pa.array(doubles()),
        "of_float32": singles(),
        "of_float16": pa.array(np.arange(ROWS, dtype=np.float16) / 2),
        "whole": pa.array([float(row % 17) for row in range(ROWS)]),
        "decimal": pa.array([Decimal(row) / 4 for row in range(ROWS)], pa.decimal128(12, 2)),
        "small": pa.array([Decimal(row).scaleb(-12) for row in range(ROWS)], pa.decimal128(14, 12)),
        "flag": pa.array([row % 3 == 0 for row in range(ROWS)]),
        "day": pa.array([MOMENT // 86_400 + row % 40 for row in range(ROWS)], pa.date32()),
        "clock": pa.array([row * 60 * 10**6 + row % 2 for row in range(ROWS)], pa.time64("us")),
        "unsigned": pa.array([2**63 + row for row in range(ROWS)], pa.uint64()),
        "bytes": pa.array([bytes([row, 65]) for row in range(ROWS)]),
        "word": pa.array([f"w{row % 9}" for row in range(ROWS)]).dictionary_encode(),
        "zoned": pa.array(times("us"), pa.timestamp("us", "Europe/Berlin")),
        **{f"time_{unit}": pa.array(times(unit), pa.timestamp(unit)) for unit in EVERY},
    }
    LISTS: dict[str, pa.Array] = {
        "reals": pa.array([[each, 2.0] if each is not None else [] for each in doubles()]),
        "singles": pa.array([[0.1, float(row)] for row in range(ROWS)], pa.list_(pa.float32())),
        "days": pa.array([[row, row % 7] if row % 5 else None for row in range(ROWS)], pa.list_(pa.date32())),
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows whose values are all rare, so that those that are not found have the bucket of their text."""
    folder = tmp_path_factory.mktemp("values")
    rows = pa.table(
        {
            "user": pa.array([row % 20 for row in range(ROWS)], pa.decimal128(9, 1)),
            "item": pa.array([float(row % 50) for row in range(ROWS)]),
            "label": [row % 2 for row in range(ROWS)],
            "time": list(range(ROWS)),
            **VALUES,
            **LISTS,
        }
    )
    pq.write_table(rows, folder / "raw.parquet")
    hashed = {"min_count": dict.fromkeys(VALUES, 3), "rare": "hash", "hash_buckets": BUCKETS}
    settings: dict[str, Any] = {"categorical": tuple(VALUES), "lists": tuple(LISTS), "split": "random"}
    prepare_custom(folder / "raw.parquet", folder / "out", **settings, **hashed)
    return folder


def row_of_value(prepared: Path, name: str) -> dict[str, int]:
    """Return the table row that preparation gave to every original id."""
    ids = pq.read_table(prepared / "out" / "ids" / f"{name}.parquet")
    return dict(zip(ids["original_id"].to_pylist(), ids["row"].to_pylist(), strict=True))


@pytest.mark.parametrize("name", ["user_id", "item_id", *VALUES])
def test_a_value_has_the_id_and_the_bucket_that_preparation_gave_it(prepared: Path, name: str) -> None:
    schema = Schema.load(prepared / "out")
    column = next(each for each in schema.categorical if each.name == name)
    table = IdTable(prepared / "out", column)
    values = pq.read_table(prepared / "raw.parquet")[name.removesuffix("_id")]
    encoded = table.encode(values)
    assert len(encoded) == ROWS and encoded.min() == 0
    assert set(encoded.tolist()) == set(range(column.num_ids))  # every id of the data, and no other
    parts = [table.encode(values.slice(row, 1)).item() for row in range(0, ROWS, 7)]
    assert parts == encoded[::7].tolist()  # whatever other values there are in a part of a file
    if column.buckets:
        kept = IdTable(prepared / "out", column)
        rows = row_of_value(prepared, name)
        expected = [rows[each] for each in table.decode(encoded).to_pylist()]
        assert table.rows(values).tolist() == expected
        kept.encode = lambda wanted: np.full(len(wanted), -1)  # type: ignore[method-assign]  # as values never seen
        hashed = [column.num_seen + each for each in expected_buckets(table, encoded)]
        assert kept.rows(values).tolist() == hashed


def expected_buckets(table: IdTable, encoded: np.ndarray) -> list[int]:
    """Return the buckets of the ids that preparation stored, by their texts."""
    texts = ["" if each is None else str(each) for each in table.decode(encoded).to_pylist()]
    return buckets_of(texts, BUCKETS).tolist()


def test_lists_of_values_have_the_ids_that_preparation_gave_them(prepared: Path) -> None:
    schema = Schema.load(prepared / "out")
    rows = pq.read_table(prepared / "raw.parquet")
    columns = {name: rows[name] for name in LISTS}
    found = encode_context(IdTables(prepared / "out"), schema, list(LISTS), columns, ROWS, np.ones(ROWS, bool)).lists
    for name in LISTS:
        table = IdTable(prepared / "out", next(each for each in schema.categorical if each.name == name))
        assert found[name].lengths.tolist() == [len(each or []) for each in columns[name].to_pylist()]
        assert set(found[name].ids.tolist()) >= set(range(table.column.num_seen))
    stored: dict[str, list[int]] = {name: [] for name in LISTS}
    for split in ("train", "validation", "test"):
        for batch in build_loader(prepared / "out", schema, split, 10_000):
            for name in LISTS:
                stored[name] += batch.ids[name].values().tolist()
    for name in LISTS:
        assert sorted(stored[name]) == sorted(found[name].ids.tolist())


def test_numbers_are_found_among_ids_of_text(tmp_path: Path) -> None:
    """Users of text such as 17, and a request by a data frame in which missing values made them 17.0."""
    rows = [(f"{user}", f"i{item}", label, time) for user, item, label, time in some_rows()] + [("x", "i100", 1, 3)]
    prepare_custom(write_csv(tmp_path / "raw.csv", rows), tmp_path / "out")
    table = IdTable(tmp_path / "out", Schema.load(tmp_path / "out").entity("user"))
    assert table.of_text
    expected = table.encode(["10", "12"]).tolist()
    assert min(expected) >= 0
    assert table.encode([10.0, 12.0, 10.5]).tolist() == [*expected, -1]
    assert table.encode(pa.array([Decimal("10.0"), Decimal("12.0")])).tolist() == expected
