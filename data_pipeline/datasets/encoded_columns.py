"""What encoded columns hold, from the statistics of row groups that have some, else from the values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.datasets.encoded_lists import largest_id
from data_pipeline.errors import DataError
from data_pipeline.parquet_files import BATCH_ROWS, open_parquet


def largest_in_files(files: list[Path], column: str, on_progress: Callable[[str], None]) -> int:
    """Return the largest id of a column, from the statistics of row groups that have some, else from the values.

    Raises:
        DataError: A value is null or negative.
    """
    largest = -1
    for place, extremes in _row_groups(files, column):
        largest = max(largest, largest_id(extremes, place, "ids are whole numbers from 0"))
    if largest < 0:
        on_progress(f"column {column!r}: no values in {files[0].parent}")
    return largest


def check_weights(files: list[Path], column: str, split: str) -> None:
    """Refuse a column of sample weights with a null, negative or infinite value, or none above 0 in training.

    Raises:
        DataError: There is such a value, or no such weight.
    """
    heaviest = _greatest(files, column, sys.float_info.max, "weights are finite numbers of at least 0")
    if split == "train" and not heaviest:
        raise DataError(
            f"column {column!r}: all weights of the {split} split are 0, so that no row counts in the loss. Correct"
            " them, or set data.weight=null, where every row has the weight 1"
        )


def check_labels(files: list[Path], column: str) -> None:
    """Refuse a column of labels with a null, or with a value below 0 or above 1.

    Raises:
        DataError: There is such a value.
    """
    _greatest(files, column, 1, "labels are 0 and 1")


def _greatest(files: list[Path], column: str, limit: float, rule: str) -> float:
    """Return the greatest value of a column; raise `DataError` for nulls, nan and values that are not in [0, limit]."""
    for file in files:
        _refuse_nan(file, column, rule)
    greatest = 0.0
    for place, (low, high, nulls) in _row_groups(files, column):
        if nulls or (low is not None and not 0 <= low <= high <= limit):
            found = f"{nulls} nulls" if nulls else f"values from {low} to {high}"
            raise DataError(f"{place}: {found}, but {rule}. Correct the values, or name another column")
        greatest = max(greatest, high or 0.0)
    return greatest


def _refuse_nan(file: Path, column: str, rule: str) -> None:
    """Raise `DataError` for a nan, which the statistics of row groups leave out: real numbers are read once."""
    with open_parquet(file) as parquet:
        if not pa.types.is_floating(parquet.schema_arrow.field(column).type):
            return
        before = 0
        for batch in parquet.iter_batches(BATCH_ROWS, columns=[column]):
            if (row := pc.index(pc.is_nan(batch.column(0).cast(pa.float64())), True).as_py()) >= 0:
                raise DataError(
                    f"{file}, row {before + row + 1}: column {column!r}: nan, but {rule}. Correct the values, or name"
                    " another column"
                )
            before += len(batch)


def _row_groups(files: list[Path], column: str) -> Iterator[tuple[str, tuple[Any, Any, int]]]:
    """Yield the place of every row group, and the least value of a column, the greatest, and the number of nulls."""
    for file in files:
        footer = pq.read_metadata(file)
        with open_parquet(file) as parquet:
            for number in range(footer.num_row_groups):
                extremes = _extremes(footer.row_group(number), column) or _counted(parquet, number, column)
                yield f"{file}, row group {number}: column {column!r}", extremes


def _extremes(group: Any, column: str) -> tuple[Any, Any, int] | None:
    """Return minimum, maximum and nulls by the statistics of a row group, or None where it has none of them."""
    for number in range(group.num_columns):
        chunk = group.column(number)
        if chunk.path_in_schema == column and chunk.is_stats_set:
            statistics = chunk.statistics
            if statistics.has_min_max and statistics.has_null_count:
                return statistics.min, statistics.max, statistics.null_count
    return None


def _counted(parquet: pq.ParquetFile, number: int, column: str) -> tuple[Any, Any, int]:
    low = high = None
    nulls = 0
    for batch in parquet.iter_batches(BATCH_ROWS, row_groups=[number], columns=[column]):
        values = batch.column(0)
        nulls += values.null_count
        extremes = pc.min_max(values).as_py()
        if extremes["min"] is not None:
            low = extremes["min"] if low is None else min(low, extremes["min"])
            high = extremes["max"] if high is None else max(high, extremes["max"])
    return low, high, nulls
