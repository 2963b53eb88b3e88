"""Decoded Arrow columns -> checked numpy arrays. Every fault of the data is a `DataError` with its position."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from data_pipeline.errors import DataError
from data_pipeline.schema import Categorical, Dense, Schema

REMEDY = "Prepare the data again"


@dataclass(frozen=True)
class Where:
    """The position of a row: its file, its row group in the file, and its row in the row group."""

    path: Path
    group: int
    row: int

    def error(self, row: int | None, column: str, value: object, expected: str) -> DataError:
        """Describe a fault ``row`` rows further on, or, with None, of the row group."""
        position = f"{self.path}, row group {self.group}" + (f", row {self.row + row}" if row is not None else "")
        return DataError(f"{position}: {column} = {value}, expected {expected}. {REMEDY}")


@dataclass
class ColumnArrays:
    """n checked rows of one row group.

    Attributes:
        where: The position of the first row.
        ids: int64 or, where they are stored so, int32 ``[n]`` for every column of one id per row, in schema order.
        sequences: For every column of lists, in schema order: its values, and int64 ``[n + 1]`` offsets into them.
        dense: float32 ``[n]`` for every dense column, as stored.
        labels: float32 ``[n]``, or ``[n, T]`` of several labels; ones where the data have none.
        unseen: Whether `ids` have unseen ids.
        weights: float32 ``[n]``, at least 0; None where the data have none.
    """

    where: Where
    ids: list[np.ndarray]
    sequences: list[tuple[np.ndarray, np.ndarray]]
    dense: list[np.ndarray]
    labels: np.ndarray
    unseen: bool = False
    weights: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def rows(self, start: int, stop: int) -> ColumnArrays:
        """Return the rows ``start .. stop-1``: views."""
        at = slice(start, stop)
        return ColumnArrays(
            replace(self.where, row=self.where.row + start),
            [ids[at] for ids in self.ids],
            [_cut_lists(values, offsets[start : stop + 1]) for values, offsets in self.sequences],
            [values[at] for values in self.dense],
            self.labels[at],
            self.unseen,
            None if self.weights is None else self.weights[at],
        )


def _cut_lists(values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of the lists between the offsets, and the offsets into them."""
    return values[offsets[0] : offsets[-1]], offsets - offsets[0]


def column_names(schema: Schema) -> list[str]:
    """Return the columns that `check_columns` reads."""
    names = [column.name for column in schema.categorical] + [column.name for column in schema.dense]
    return [*names, *schema.label_columns, *([] if schema.weight is None else [schema.weight])]


def check_columns(rows: pa.RecordBatch, schema: Schema, where: Where) -> ColumnArrays:
    """Return the rows as arrays, which are views where Arrow allows.

    Raises:
        DataError: A null; an id that is negative or not below ``num_ids``; a dense value that is not finite; a label
            other than 0 and 1; a weight that is negative or not finite.
    """
    columns = ColumnArrays(where, [], [], [], _labels(rows, schema, where))
    for column in schema.categorical:
        if column.sequence:
            columns.sequences.append(_sequence(rows, column, where))
        else:
            columns.ids.append(_numpy(_array(rows, column.name, where, *_IDS)))
            columns.unseen |= _check_ids(columns.ids[-1], column, where) >= column.num_seen
    columns.dense = [_dense(rows, column, where) for column in schema.dense]
    if schema.weight is not None:
        columns.weights = _weights(rows, schema.weight, where)
    return columns


_IDS, _REALS = (pa.int64(), pa.int32()), (pa.float32(),)


def _array(rows: pa.RecordBatch, name: str, where: Where, *kinds: pa.DataType) -> pa.Array:
    """Return a column, or the lists of one, whose values have one of these types."""
    column = rows.column(name)
    lists = pa.types.is_list(column.type)
    if (column.type.value_type if lists else column.type) not in kinds:
        # only files that others wrote: see `Schema.stored`
        column = column.cast(pa.list_(kinds[0]) if lists else kinds[0], safe=False)
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise where.error(row, name, "null", "a value in every row")
    return column


def _numpy(array: pa.Array) -> np.ndarray:
    # Not to_numpy: it imports pandas where that is installed, once in every process.
    return np.from_dlpack(array)


def _sequence(rows: pa.RecordBatch, column: Categorical, where: Where) -> tuple[np.ndarray, np.ndarray]:
    lists = _array(rows, column.name, where, *_IDS)
    offsets = _numpy(lists.offsets)
    values = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    offsets = (offsets - offsets[0]).astype(np.int64)
    if values.null_count:
        position = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise where.error(_row_of(position, offsets), column.name, "[..., null, ...]", "ids without null")
    ids = _numpy(values)
    _check_ids(ids, column, where, offsets)
    return ids, offsets


def _check_ids(ids: np.ndarray, column: Categorical, where: Where, offsets: np.ndarray | None = None) -> int:
    """Return the greatest id, -1 without any: by the values, since statistics of the file may be wrong."""
    unsigned = ids.view(f"u{ids.itemsize}")  # a negative id becomes a huge one: one pass finds both faults
    largest = int(unsigned.max()) if unsigned.size else -1
    if largest >= column.num_ids:
        position = int(np.argmax(unsigned >= column.num_ids))
        row = position if offsets is None else _row_of(position, offsets)
        raise where.error(row, column.name, ids[position], f"an id from 0 to {column.num_ids - 1}")
    return largest


def _row_of(position: int, offsets: np.ndarray) -> int:
    return int(np.searchsorted(offsets, position, side="right")) - 1


def _dense(rows: pa.RecordBatch, column: Dense, where: Where) -> np.ndarray:
    if column.fill is None and column.log is None:
        return _finite(rows, column.name, where)
    values = _numpy(_array(rows, column.name, where, *_REALS))
    valid = column.valid(values)
    if not valid.all():
        row = int(np.argmin(valid))
        raise where.error(row, column.name, values[row], "a number that its transform is defined for")
    return values


def _finite(rows: pa.RecordBatch, name: str, where: Where) -> np.ndarray:
    values = _numpy(_array(rows, name, where, *_REALS))
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise where.error(row, name, values[row], "a finite number")
    return values


def _weights(rows: pa.RecordBatch, name: str, where: Where) -> np.ndarray:
    weights = _finite(rows, name, where)
    if len(weights) and weights.min() < 0:
        row = int(np.argmin(weights))
        raise where.error(row, name, weights[row], "a weight of at least 0")
    return weights


def _labels(rows: pa.RecordBatch, schema: Schema, where: Where) -> np.ndarray:
    if schema.learned:
        return np.stack([_label(rows, name, where) for name in schema.learned], axis=1)
    return np.ones(len(rows), np.float32) if schema.label is None else _label(rows, schema.label, where)


def _label(rows: pa.RecordBatch, name: str, where: Where) -> np.ndarray:
    labels = _numpy(_array(rows, name, where, *_REALS))
    valid = labels == 0
    valid |= labels == 1
    if not valid.all():
        row = int(np.argmin(valid))
        raise where.error(row, name, labels[row], "a label, 0 or 1")
    return labels
