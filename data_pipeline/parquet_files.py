"""Write Parquet files, a row group at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

BATCH_ROWS = 65_536  # rows in memory at a time


def write_parquet(rows: pa.Table | pa.RecordBatchReader, path: Path) -> None:
    """Write ``rows``, in order, as one Parquet file with row groups of `BATCH_ROWS` rows."""
    reader = rows.to_reader() if isinstance(rows, pa.Table) else rows
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for group in row_groups(reader, BATCH_ROWS):
            writer.write_table(group)


def row_groups(batches: pa.RecordBatchReader, size: int) -> Iterator[pa.Table]:
    """Cut a stream of batches of any length into tables of ``size`` rows; the last may be shorter."""
    pending: list[pa.RecordBatch] = []
    missing = size
    for batch in batches:
        while batch.num_rows:
            pending.append(batch.slice(0, missing))
            missing -= pending[-1].num_rows
            batch = batch.slice(pending[-1].num_rows)
            if missing == 0:
                yield pa.Table.from_batches(pending)
                pending, missing = [], size
    if pending:
        yield pa.Table.from_batches(pending)
