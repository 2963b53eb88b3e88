"""Ids of requests, in every form that Python users have them in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.errors import ConfigError
from cove_dist.inference.ids import IdTable, as_array
from cove_dist.inference.row_files import read_rows
from cove_dist.inference.users import read_column
from data_pipeline.schema import Categorical


class Series:
    """Ids as pandas has them: iterable, with ``__array__``, and without a truth value."""

    def __init__(self, values: list[Any], kind: Any = None) -> None:
        self._values = np.array(values, dtype=kind)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._values

    def __iter__(self) -> Any:
        return iter(self._values)

    def __bool__(self) -> bool:
        raise ValueError("the truth value of an array is ambiguous")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> IdTable:
    """Ids 1001, 1002, 1003 and 2000, the last of which training did not see."""
    folder = tmp_path_factory.mktemp("ids")
    (folder / "ids").mkdir()
    pq.write_table(pa.table({"id": range(4), "original_id": [1001, 1002, 1003, 2000]}), folder / "ids" / "u.parquet")
    return IdTable(folder, Categorical("u", 4, 3, "user"))


FORMS = {
    "list": [1003, 1001],
    "tuple": (1003, 1001),
    "NumPy": np.array([1003, 1001], np.int32),
    "unsigned": np.array([1003, 1001], np.uint64),
    "objects": np.array([1003, "1001"], object),
    "texts": np.array(["1003", "1001"]),
    "Series": Series([1003, 1001]),
    "Series of objects": Series([1003, "1001"], object),
    "tensor": torch.tensor([1003, 1001]),
    "scalars": [np.int64(1003), torch.tensor(1001)],
    "numbers and text": [1003, "1001"],
    "Arrow": pa.array(["1003", "1001"]),
    "chunks": pa.chunked_array([[1003], [1001]]),
    "whole floats": np.array([1003.0, 1001.0]),
    "categories": pa.array(["1003", "1001"]).dictionary_encode(),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_ids_in_any_form_are_encoded_alike(form: str, table: IdTable) -> None:
    assert table.encode(FORMS[form]).tolist() == [2, 0]


@pytest.mark.parametrize("missing", [[], [None]])
def test_large_whole_floats_are_the_ids_that_they_equal(missing: list[None], tmp_path: Path) -> None:
    (tmp_path / "ids").mkdir()
    ids = [12345678901, 3, 20000000000]
    pq.write_table(pa.table({"id": range(3), "original_id": ids}), tmp_path / "ids" / "u.parquet")
    table = IdTable(tmp_path, Categorical("u", 3, 3, "user"))
    assert table.encode(pa.array([2e10, *missing, 12345678901.0])).tolist() == [2, *(-1 for _ in missing), 0]
    assert table.encode([2.5, 3.0]).tolist() == [-1, 1]


@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_ids_of_text_in_files_keep_their_zeros(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"users.{suffix}"
    path.write_text(("user,item\n" if suffix == "csv" else "") + "0439,7\n0440,8\n")
    assert read_column(path, text=True).to_pylist() == ["0439", "0440"]
    assert read_column(path, text=False).to_pylist() == [439, 440]
    if suffix == "csv":
        [rows] = read_rows(path, {"user": pa.string(), "absent": pa.string()})
        assert rows.to_pydict() == {"user": ["0439", "0440"], "item": ["7", "8"]}


def test_only_empty_fields_of_csv_are_null_as_for_preparation(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("user,device,price\n1,,2.5\n2,NA,\n3,null,4\n")
    [rows] = read_rows(path, {"price": pa.float64()})
    assert rows.to_pydict() == {"user": ["1", "2", "3"], "device": [None, "NA", "null"], "price": [2.5, None, 4.0]}


def test_rows_may_be_in_several_files_of_a_folder_or_glob(tmp_path: Path) -> None:
    folder = tmp_path / "day=1"
    folder.mkdir()
    (folder / "b.csv").write_text("item,user\n9,3\n")
    (folder / "a.csv").write_text("user,item\n1,7\n2,8\n")
    (folder / "_SUCCESS.csv").write_text("")
    expected = {"user": ["1", "2", "3"], "item": ["7", "8", "9"]}
    for path in (tmp_path, folder / "[a-c].csv", tmp_path / "day=*" / "[ab].csv"):
        assert pa.concat_tables(read_rows(path, {})).to_pydict() == expected
    (folder / "c.csv").write_text("user\n1\n")
    with pytest.raises(ConfigError, match=r"rows = .*c\.csv: other columns than those before it, user: string"):
        list(read_rows(tmp_path, {}))
    with pytest.raises(ConfigError, match=r"rows = .*none\*: has no Parquet or CSV files"):
        list(read_rows(tmp_path / "none*", {}))


def test_iterators_are_read_once(table: IdTable) -> None:
    assert table.encode(as_array(number for number in (1003, 1001))).tolist() == [2, 0]


@given(st.lists(st.one_of(st.none(), st.integers(), st.text("01ab", min_size=1)), max_size=6))
def test_ids_are_numbers_of_one_type_or_their_texts(ids: list[Any]) -> None:
    found = as_array(ids).to_pylist()
    assert found in (ids, [None if each is None else str(each) for each in ids])


def test_numbers_beyond_int64_are_unknown_ids(table: IdTable) -> None:
    assert table.encode([2**64, 1002, -(2**70)]).tolist() == [-1, 1, -1]


@pytest.mark.parametrize("single", [1001, "1001", 10.5, None])
def test_a_single_id_is_refused(single: Any) -> None:
    with pytest.raises(ConfigError, match=rf"users = {single!r}: give a list of ids, as \[{single!r}\]"):
        as_array(single, "users")


@pytest.mark.parametrize("values", [np.ones((2, 3)), torch.ones(2, 3)])
def test_more_dimensions_are_refused(values: Any) -> None:
    with pytest.raises(ConfigError, match=r"items: an array of shape \[2, 3\]; give ids of shape \[n\]"):
        as_array(values, "items")


def test_lists_in_place_of_ids_are_refused() -> None:
    with pytest.raises(ConfigError, match="items: of type list<item: int64>; ids are numbers or text"):
        as_array([[1], [2]], "items")


def test_an_unknown_id_is_named_once(table: IdTable) -> None:
    ids = ["x", 2000, "x", 1001]
    with pytest.raises(
        ConfigError,
        match="users: 3 of 4 ids were not in the training split, or are too rare there, such as 'x', '2000'; ",
    ):
        table.require_known(table.encode(ids), ids, "users", "unknown=skip")


TEXTS = ["17", "18", "ä"]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (pa.array([17.0, 18.0, 5.0]).dictionary_encode(), [0, 1, -1]),
        (pa.array(["ä".encode(), b"17", b"\xff"]), [2, 0, -1]),
        (np.array([b"18", b"17"], "S2"), [1, 0]),
        (pa.array(["ä".encode()], pa.binary(2)), [2]),
    ],
)
def test_numbers_in_dictionaries_and_text_in_bytes(wanted: Any, expected: list[int], tmp_path: Path) -> None:
    (tmp_path / "ids").mkdir()
    pq.write_table(pa.table({"id": range(3), "original_id": TEXTS}), tmp_path / "ids" / "user.parquet")
    assert IdTable(tmp_path, Categorical("user", 3, 3, "user")).encode(wanted).tolist() == expected
