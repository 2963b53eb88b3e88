"""Rows of two prepared folders, matched by original id."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.id_matching import match_rows


def write_ids(folder: Path, ids: list, **columns: list) -> Path:
    (folder / "ids").mkdir(parents=True, exist_ok=True)
    table = pa.table({"id": range(len(ids)), **columns, "original_id": ids})
    pq.write_table(table, folder / "ids" / "item_id.parquet")
    return folder


@given(st.data())
def test_rows_are_those_of_a_dictionary(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """In any order, with a null, and with ids that only validation and test of the former data had."""
    ids = st.lists(st.one_of(st.none(), st.integers(0, 9)), unique=True, min_size=1)
    former, new = data.draw(ids), data.draw(ids)
    seen = data.draw(st.integers(0, len(former)))
    first = data.draw(st.integers(0, len(new)))
    last = data.draw(st.integers(first, len(new)))
    folder = tmp_path_factory.mktemp("ids")
    there, here = write_ids(folder / "a", former), write_ids(folder / "b", new)
    rows = {original: row for row, original in enumerate(former[:seen])}
    assert match_rows(there, here, "item_id", seen, first, last).tolist() == [rows.get(i, -1) for i in new[first:last]]


def test_numbers_match_the_same_numbers_as_text_and_kinds_tell_equal_values_apart(tmp_path: Path) -> None:
    there = write_ids(tmp_path / "a", ["7", "9"])
    here = write_ids(tmp_path / "b", [9, 8, 7])
    assert match_rows(there, here, "item_id", 2, 0, 3).tolist() == [1, -1, 0]
    there = write_ids(tmp_path / "c", ["x", "x"], kind=["brand", "genre"])
    here = write_ids(tmp_path / "d", ["x", "x"], kind=["genre", "brand"])
    assert match_rows(there, here, "item_id", 2, 0, 2).tolist() == [1, 0]


def test_an_id_that_occurs_twice_and_a_missing_table_are_refused(tmp_path: Path) -> None:
    there, here = write_ids(tmp_path / "a", [5, 5]), write_ids(tmp_path / "b", [5, 6])
    with pytest.raises(DataError, match="3 matches of 2 ids: an original id occurs twice"):
        match_rows(there, here, "item_id", 2, 0, 2)
    with pytest.raises(DataError, match=r"ids/user_id\.parquet: no such file: rows are matched by the original ids"):
        match_rows(there, here, "user_id", 2, 0, 2)
