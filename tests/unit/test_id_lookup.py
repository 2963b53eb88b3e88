"""Ids are found among all ids of a table at the price of the request."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cove_dist.inference import ids as ids_module
from cove_dist.inference.context import encode_context
from cove_dist.inference.id_lookup import IdLookup
from cove_dist.inference.ids import IdTable, IdTables
from data_pipeline.schema import Categorical, Schema

KINDS = {
    pa.int64(): st.integers(-30, 30),
    pa.uint64(): st.integers(0, 60),
    pa.string(): st.text("ab0é", max_size=3),
    pa.large_string(): st.text("ab0", max_size=3),
    pa.float64(): st.sampled_from([0.0, -0.0, 1.5, float("nan")]),
    pa.bool_(): st.booleans(),
}


@given(st.sampled_from(list(KINDS)), st.data())
def test_ids_are_found_where_arrow_finds_them(kind: pa.DataType, data: st.DataObject) -> None:
    values = st.one_of(st.none(), KINDS[kind])
    table = pa.array(data.draw(st.lists(values, max_size=40)), kind)
    requested = pa.array(data.draw(st.lists(values, max_size=10)), kind)
    expected = pc.index_in(requested, table).fill_null(-1).to_pylist()
    assert IdLookup(table).find(requested).tolist() == expected


def lookup_of(folder: Path, ids: list[Any]) -> IdTable:
    path = folder / "ids" / "u.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table({"id": range(len(ids)), "original_id": ids}), path)
    return IdTable(folder, Categorical("u", len(ids), len(ids), "user"))


WHOLE = [-(2**63), -12, 0, 7, 2**63 - 1, None]


@pytest.mark.parametrize("beyond", [[], [str(2**64)]])
def test_texts_of_whole_numbers_are_these_numbers(beyond: list[str], tmp_path: Path) -> None:
    table = lookup_of(tmp_path, WHOLE)
    texts = ["7", "07", "+7", "7.0", "", "-0", "0", "seven", "7\n", "-12", str(2**63 - 1), str(-(2**63)), None, *beyond]
    by_text = {None if each is None else str(each): place for place, each in enumerate(WHOLE)}
    by_text["7.0"] = by_text["7"]  # as pandas writes whole numbers in a column with empty values
    assert table.encode(texts).tolist() == [by_text.get(each, -1) for each in texts]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
@pytest.mark.parametrize("sorts", [0, 1])
def test_no_request_reads_all_ids_again(
    kind: pa.DataType, sorts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.arange(1000, 3000) if sorts == 0 else np.random.default_rng(0).permutation(np.arange(1000, 3000))
    table = lookup_of(tmp_path, pa.array(ids).cast(kind).to_pylist())
    hashed, ordered, compared = Mock(wraps=pc.index_in), Mock(wraps=pc.sort_indices), Mock(wraps=pc.less)
    for name, mock in (("index_in", hashed), ("sort_indices", ordered), ("less", compared)):
        monkeypatch.setattr(pc, name, mock)
    for _ in range(3):
        assert (
            table.encode(ids[[5, 1999]]).tolist() == table.encode([str(ids[5]), str(ids[1999])]).tolist() == [5, 1999]
        )
    assert (hashed.call_count, ordered.call_count) == (0, sorts)
    assert [len(call.args[0]) for call in compared.call_args_list if len(call.args[0]) > 2] == [1999]  # once, for runs


def test_parts_of_rows_and_columns_of_one_table_read_its_ids_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup_of(tmp_path, ["a", "b", "c"])
    columns = (Categorical("u", 3, 3), Categorical("last", 3, 3, table="u"))
    schema = Schema("made", "label", columns, (), {})
    read = Mock(wraps=ids_module.read_original_ids)
    monkeypatch.setattr(ids_module, "read_original_ids", read)
    tables = IdTables(tmp_path)
    for _ in range(2):
        values = {"u": ["a", "c"], "last": ["b", "x"]}
        context = encode_context(tables, schema, ["u", "last"], values, 2, np.ones(2, bool))
        assert [each.tolist() for each in context.ids.values()] == [[0, 2], [1, 3]]
    assert read.call_count == 1
