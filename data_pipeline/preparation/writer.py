"""Encoded rows -> sharded Parquet, and the statistics of what was written."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.parquet_files import open_parquet, row_groups, write_row_groups
from data_pipeline.schema import Dense

ROW_GROUPS_PER_FILE = 16
MIN_ROW_GROUPS = 32  # so that 8 ranks can share a small split evenly


def write_split(rows: pa.RecordBatchReader, num_rows: int, folder: Path, row_group_size: int) -> tuple[str, ...]:
    """Write ``rows``, in order, as ``folder/part-00000.parquet``, … of 16 row groups each.

    Args:
        rows: Rows of one split, encoded.
        num_rows: Number of rows.
        folder: The folder of the split; it must not exist.
        row_group_size: Rows of a row group. A split with less than 32 such row groups gets 32 smaller ones.

    Returns:
        The files, relative to the parent of ``folder``.
    """
    folder.mkdir()
    groups = row_groups(rows, min(row_group_size, math.ceil(num_rows / MIN_ROW_GROUPS)))
    files: list[str] = []
    while (first := next(groups, None)) is not None:
        path = folder / f"part-{len(files):05d}.parquet"
        write_row_groups(chain([first], islice(groups, ROW_GROUPS_PER_FILE - 1)), rows.schema, path)
        files.append(f"{folder.name}/{path.name}")
    return tuple(files)


def dense_statistics(
    files: Sequence[Path], column: str, transform: Callable[[np.ndarray], np.ndarray] | None = None
) -> Dense:
    """Compute the mean and the population standard deviation of a float32 column of Parquet files.

    Reads a row group at a time. The update is that of Chan, Golub and LeVeque (1979), which is stable for a mean far
    from 0. A constant column has a deviation of 1.

    Args:
        files: The files.
        column: Name of the column.
        transform: Applied to the values first; None: they are as stored.
    """
    count, mean, squares = 0, 0.0, 0.0
    for file in files:
        parquet = open_parquet(file)
        for number in range(parquet.num_row_groups):
            values = parquet.read_row_group(number, columns=[column])[column].to_numpy().astype(np.float64)
            if not len(values):
                continue
            values = values if transform is None else transform(values)
            delta, total = values.mean() - mean, count + len(values)
            squares += len(values) * values.var() + delta**2 * count * len(values) / total
            mean += delta * len(values) / total
            count = total
    return Dense(column, mean=float(mean), std=math.sqrt(squares / count) or 1.0)
