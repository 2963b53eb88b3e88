"""Small batches become row groups of a size that readers are quick with."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline import parquet_files
from data_pipeline.parquet_files import GroupedWriter

SCHEMA = pa.schema([("x", pa.int64())])


def batch(*values: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(values, pa.int64())], schema=SCHEMA)


@pytest.mark.parametrize("sizes", [[], [0], [3, 4], [4, 3, 0, 3, 12, 1], [10, 10], [1] * 25])
def test_row_groups_have_the_rows_in_order_and_no_fewer_than_asked(
    sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "BATCH_ROWS", 10)
    starts = [sum(sizes[:place]) for place in range(len(sizes))]
    with GroupedWriter(tmp_path / "part.parquet", SCHEMA, compression="zstd") as writer:
        for start, size in zip(starts, sizes, strict=True):
            writer.write_batch(batch(*range(start, start + size)))
    file = pq.ParquetFile(tmp_path / "part.parquet")
    assert file.read()["x"].to_pylist() == list(range(sum(sizes)))
    groups = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
    assert all(10 <= rows < 10 + max(sizes) for rows in groups[:-1])
    assert len(groups) <= sum(sizes) // 10 + 1


def test_after_an_error_the_file_is_closed_without_what_is_pending(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), GroupedWriter(tmp_path / "part.parquet", SCHEMA) as writer:
        writer.write_batch(batch(1, 2))
        raise ZeroDivisionError
    assert pq.read_metadata(tmp_path / "part.parquet").num_rows == 0
