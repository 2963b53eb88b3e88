"""Id tables map encoded ids to original ids."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline import id_tables
from data_pipeline.id_tables import combined, id_table_path, read_original_block, read_original_id, read_original_ids
from data_pipeline.parquet_files import BATCH_ROWS, write_parquet
from tests.unit.data.prepare_helpers import prepare_custom, some_rows, write_csv


def test_entry_i_is_the_original_id_of_i(tmp_path: Path) -> None:
    schema = prepare_custom(write_csv(tmp_path / "raw.csv", some_rows()), tmp_path / "out")
    table = schema.entity("item").table_name
    originals = read_original_ids(tmp_path / "out", table).to_pylist()
    assert originals == [*range(100, 119), *range(200, 205)]
    assert [read_original_id(tmp_path / "out", table, encoded) for encoded in range(24)] == originals


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_an_id_in_a_later_row_group_is_found(tmp_path: Path, kind: pa.DataType) -> None:
    originals = pa.array(range(10, BATCH_ROWS + 20)).cast(kind)
    path = id_table_path(tmp_path, "user_id")
    path.parent.mkdir()
    write_parquet(pa.table({"id": range(len(originals)), "original_id": originals}), path)
    assert read_original_id(tmp_path, "user_id", BATCH_ROWS + 1) == originals[BATCH_ROWS + 1].as_py()
    assert read_original_ids(tmp_path, "user_id").equals(originals)


@pytest.mark.parametrize("most", [199, 200])
def test_text_that_fits_in_no_array_of_string_is_large_string(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    column = pa.chunked_array([pa.array(["0123456789", None, ""])] * 20)
    monkeypatch.setattr(id_tables, "_MOST_TEXT", most)
    array = combined(column)
    assert array.type == (pa.large_string() if most < 200 else pa.string())
    assert array.to_pylist() == column.to_pylist()
    assert combined(pa.chunked_array([[1], [2]])).equals(pa.array([1, 2]))


def test_two_gibibytes_of_text_do_not_fit_where_arrow_refuses_them() -> None:
    """Of chunks that share memory; to combine them as ``large_string`` would take 2 GiB."""
    column = pa.chunked_array([pa.array(["x" * 2**20])] * 2**11)
    with pytest.raises(pa.ArrowInvalid, match="offset overflow"):
        column.combine_chunks()
    assert not id_tables._fits(column)
    assert id_tables._fits(column[1:])


@pytest.mark.parametrize(("first", "last"), [(0, 0), (0, 5), (3, 4), (4, 11), (10, 23), (0, 23), (23, 23)])
def test_a_block_of_ids_reads_only_its_row_groups(
    first: int, last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = id_table_path(tmp_path, "user_id")
    path.parent.mkdir()
    originals = [f"u{each}" for each in range(23)]
    pq.write_table(pa.table({"id": range(23), "original_id": originals}), path, row_group_size=5)
    read = Mock(side_effect=pq.ParquetFile.read_row_group)
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *given, **named: read(*given, **named))
    block = read_original_block(tmp_path, "user_id", first, last)
    assert (block.type, block.to_pylist()) == (pa.string(), originals[first:last])
    groups = sorted({row // 5 for row in range(first, last)})
    assert [(call.args[1], call.kwargs) for call in read.call_args_list] == [
        (group, {"columns": ["original_id"]}) for group in groups
    ]
