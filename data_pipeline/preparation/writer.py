"""Encoded rows -> sharded Parquet, and the moments of what was written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.schema import Dense

ROW_GROUPS_PER_FILE = 16
MIN_ROW_GROUPS = 32  # so that 8 ranks can share a small split evenly
BATCH_ROWS = 65_536


def write_split(rows: pa.RecordBatchReader, num_rows: int, folder: Path, row_group_size: int) -> tuple[str, ...]:
    """Write `rows`, in their order, as ``folder/part-00000.parquet``, … of 16 row groups each.

    Row groups have `row_group_size` rows, or fewer where that would give less than 32 of them. Returns the files,
    relative to the parent of `folder`.
    """
    folder.mkdir()
    groups = row_groups(rows, min(row_group_size, math.ceil(num_rows / MIN_ROW_GROUPS)))
    files = []
    while (first := next(groups, None)) is not None:
        path = folder / f"part-{len(files):05d}.parquet"
        with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
            for group in chain([first], islice(groups, ROW_GROUPS_PER_FILE - 1)):
                writer.write_table(group, row_group_size=len(group))
        files.append(f"{folder.name}/{path.name}")
    return tuple(files)


def write_table(rows: duckdb.DuckDBPyRelation, path: Path) -> None:
    """Write `rows` as one Parquet file."""
    reader = rows.to_arrow_reader(BATCH_ROWS)
    with pq.ParquetWriter(path, reader.schema, compression="zstd") as writer:
        for group in row_groups(reader, BATCH_ROWS):
            writer.write_table(group)


def row_groups(batches: pa.RecordBatchReader, size: int) -> Iterator[pa.Table]:
    """Cut a stream of batches of any length into tables of `size` rows; the last may be shorter."""
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


def moments(files: Sequence[Path], column: str) -> Dense:
    """Mean and population deviation of a float32 column over Parquet files, a row group at a time.

    The update is that of Chan, Golub and LeVeque (1979), stable for a mean far from 0. A constant column has
    deviation 1.
    """
    count, mean, squares = 0, 0.0, 0.0
    for file in files:
        parquet = pq.ParquetFile(file)
        for number in range(parquet.num_row_groups):
            values = parquet.read_row_group(number, columns=[column])[column].to_numpy().astype(np.float64)
            delta, total = values.mean() - mean, count + len(values)
            squares += len(values) * values.var() + delta**2 * count * len(values) / total
            mean += delta * len(values) / total
            count = total
    return Dense(column, mean=float(mean), std=math.sqrt(squares / count) or 1.0)
