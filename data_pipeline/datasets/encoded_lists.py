"""Columns of lists of ids that somebody else's pipeline has encoded already; see `data_pipeline.datasets.encoded`."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from data_pipeline.errors import DataError
from data_pipeline.parquet_files import BATCH_ROWS, open_parquet


class Lists(NamedTuple):
    """The lists of a column of some files.

    Attributes:
        largest: Largest id; -1 without any.
        longest: Entries of the longest list.
    """

    largest: int
    longest: int


def largest_id(extremes: tuple[int | None, int | None, int], place: str, rule: str) -> int:
    """Return the largest id of a part of a column; -1 without any.

    Args:
        extremes: Minimum and maximum, None without values, and the number of nulls.
        place: File and column, for the error.
        rule: What ids must be, for the error.

    Raises:
        DataError: A value is null or negative.
    """
    low, high, nulls = extremes
    if nulls or (low is not None and low < 0):
        raise DataError(
            f"{place} has {f'{nulls} null values' if nulls else f'the value {low}'}; {rule}. Encode them so"
        )
    return -1 if high is None else high


def is_list_of_ids(kind: pa.DataType) -> bool:
    """Return whether a type is that of lists of whole numbers."""
    return pa.types.is_list(kind) and pa.types.is_integer(kind.value_type) and kind.value_type != pa.uint64()


def read_lists(files: Sequence[Path], column: str) -> Lists:
    """Read the largest id and the longest list of a column, a part at a time.

    Raises:
        DataError: A list or an entry is null, or an id is negative.
    """
    largest, longest = -1, 0
    for file in files:
        with open_parquet(file) as parquet:
            for batch in parquet.iter_batches(BATCH_ROWS, columns=[column]):
                lists = batch.column(0)
                entries = lists.flatten()
                low, high = (pc.min_max(entries)[name].as_py() for name in ("min", "max"))
                extremes = low, high, lists.null_count + entries.null_count
                of_part = largest_id(extremes, f"{file}: column {column!r}", "lists hold whole numbers from 0")
                largest = max(largest, of_part)
                longest = max(longest, pc.max(pc.list_value_length(lists)).as_py() or 0)
    return Lists(largest, longest)
