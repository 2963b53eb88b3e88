"""Id tables map encoded ids to original ids."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from data_pipeline.id_tables import id_table_path, read_original_id, read_original_ids
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
