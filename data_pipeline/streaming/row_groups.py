"""Parquet row groups -> checked numpy columns. Every fault of the data is a `DataError` that says where it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.schema import Categorical, Schema
from data_pipeline.streaming.partition import Slice

_REMEDY = "Prepare the data again."


@dataclass(frozen=True)
class RowGroups:
    """The G row groups of a split, in file order, as their files' footers tell.

    Attributes:
        paths: the split's files.
        file, index: int64 ``[G]``: the file of every row group, and its place in it.
        rows: int64 ``[G]``.
    """

    paths: tuple[Path, ...]
    file: np.ndarray
    index: np.ndarray
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)


@dataclass
class ColumnArrays:
    """n checked rows.

    Attributes:
        ids: int64 ``[n]`` for every categorical that is not a sequence, in schema order.
        sequences: for every sequence, in schema order: its values, and int64 ``[n + 1]`` offsets into them.
        dense: float32 ``[n]`` for every dense column, as stored.
        labels: float32 ``[n]``; ones where the data has none.
    """

    ids: list[np.ndarray]
    sequences: list[tuple[np.ndarray, np.ndarray]]
    dense: list[np.ndarray]
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def read_footers(folder: Path, schema: Schema, split: str) -> RowGroups:
    """Read the footers of a split's files and hold them against the schema.

    Raises:
        DataError: unknown split, missing or damaged file, missing column, wrong type, or another number of
            rows than the schema says.
    """
    if split not in schema.splits:
        raise DataError(f"{folder}: no split {split!r}; schema.json has: {', '.join(schema.splits)}. {_REMEDY}")
    paths = tuple(folder / name for name in schema.splits[split].files)
    index, rows = [], []
    for path in paths:
        with _reading(path), pq.ParquetFile(path) as file:
            footer, arrow_schema = file.metadata, file.schema_arrow
        _check_types(path, arrow_schema, schema)
        index.append(np.arange(footer.num_row_groups))
        rows.append([footer.row_group(i).num_rows for i in range(footer.num_row_groups)])
    groups = RowGroups(
        paths,
        file=np.repeat(np.arange(len(paths)), [len(file_rows) for file_rows in rows]),
        index=np.concatenate([*index, np.empty(0, np.int64)]).astype(np.int64),
        rows=np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64),
    )
    found, declared = int(groups.rows.sum()), schema.splits[split].rows
    if found != declared:
        raise DataError(f"{folder}: files of {split} hold {found} rows, schema.json says {declared}. {_REMEDY}")
    return groups


class GroupReader:
    """Reads slices of row groups, holding one open file and one decoded row group: the last.

    Slices in sequence decode each row group once. Nothing is memory-mapped or read ahead, so that the resident memory
    of an epoch is that of one row group.
    """

    def __init__(self, groups: RowGroups, schema: Schema):
        self._groups = groups
        self._schema = schema
        self._names = [column.name for column in (*schema.categorical, *schema.dense)]
        self._names += [] if schema.label is None else [schema.label]
        self._path: Path | None = None
        self._file: pq.ParquetFile | None = None
        self._group = -1
        self._table: pa.Table | None = None

    def read(self, part: Slice) -> ColumnArrays:
        """The rows of a slice, views of the decoded row group where Arrow allows.

        Raises:
            DataError: damaged file; null; id that is negative or not below ``num_ids``; dense value that is not finite;
                label other than 0 and 1.
        """
        if part.group != self._group:
            self._decode(part.group)
        table = self._table.slice(part.start, part.stop - part.start)
        path = self._groups.paths[self._groups.file[part.group]]
        where = _Where(path, int(self._groups.index[part.group]), part.start)
        columns = ColumnArrays([], [], [], _labels(table, self._schema.label, where))
        for column in self._schema.categorical:
            if column.sequence:
                columns.sequences.append(_sequence(table, column, where))
            else:
                columns.ids.append(_ids(table, column, where))
        columns.dense = [_dense(table, column.name, where) for column in self._schema.dense]
        return columns

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._path = self._file = self._table = None
        self._group = -1

    def _decode(self, group: int) -> None:
        self._table = None  # free it before the next one takes memory
        path = self._groups.paths[self._groups.file[group]]
        with _reading(path):
            if path != self._path:
                self.close()
                self._path, self._file = path, pq.ParquetFile(path)
            self._table = self._file.read_row_group(
                int(self._groups.index[group]), columns=self._names, use_threads=False
            ).combine_chunks()
        self._group = group


def read_user_ends(groups: RowGroups, schema: Schema) -> np.ndarray:
    """int64 ``[users]``: the row after every user's last one, of a split sorted by user. Reads the user column alone.

    Raises:
        DataError: rows not sorted by user, or a bad id.
    """
    column = schema.entity("user")
    ends, before, last = [], 0, -1
    for group, (file, index, rows) in enumerate(zip(groups.file, groups.index, groups.rows, strict=True)):
        path = groups.paths[file]
        with _reading(path), pq.ParquetFile(path) as parquet:
            table = parquet.read_row_group(int(index), columns=[column.name], use_threads=False).combine_chunks()
        where = _Where(path, int(groups.index[group]), 0)
        users = np.concatenate([[last], _ids(table, column, where)])
        step = np.diff(users)
        if (step < 0).any():
            row = int(np.argmax(step < 0))
            raise where.error(row, column.name, users[row + 1], f"rows sorted by user; {users[row]} comes before it")
        ends.append(np.flatnonzero(step) + before)
        before, last = before + int(rows), users[-1]
    # A change of user ends the one before; the first "change", at row 0, ends nobody.
    return np.append(np.concatenate([*ends, np.empty(0, np.int64)])[1:], before).astype(np.int64)


@dataclass(frozen=True)
class _Where:
    path: Path
    group: int
    first_row: int

    def error(self, row: int | None, column: str, value: object, expected: str) -> DataError:
        place = f"{self.path}, row group {self.group}" + (f", row {self.first_row + row}" if row is not None else "")
        return DataError(f"{place}: {column} = {value}, expected {expected}. {_REMEDY}")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. {_REMEDY}") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}. {_REMEDY}") from error


def _check_types(path: Path, found: pa.Schema, schema: Schema) -> None:
    expected = {c.name: "list<int64>" if c.sequence else "int64" for c in schema.categorical}
    expected |= {c.name: "float" for c in schema.dense}
    expected |= {} if schema.label is None else {schema.label: "float"}
    for name, type_name in expected.items():
        if name not in found.names:
            raise DataError(f"{path}: no column {name!r}; it has {', '.join(found.names)}. {_REMEDY}")
        column = found.field(name).type
        actual = f"list<{column.value_type}>" if pa.types.is_list(column) else str(column)
        if actual != type_name:
            raise DataError(f"{path}: column {name!r} is {actual}, expected {type_name}. {_REMEDY}")


def _array(table: pa.Table, name: str, where: _Where) -> pa.Array:
    column = table.column(name)
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy()))
        raise where.error(row, name, "null", "a value in every row")
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _numpy(array: pa.Array) -> np.ndarray:
    # Not to_numpy: it imports pandas where that is installed, once in every data worker of every epoch.
    return np.from_dlpack(array)


def _ids(table: pa.Table, column: Categorical, where: _Where) -> np.ndarray:
    ids = _numpy(_array(table, column.name, where))
    _check_ids(ids, column, where)
    return ids


def _sequence(table: pa.Table, column: Categorical, where: _Where) -> tuple[np.ndarray, np.ndarray]:
    lists = _array(table, column.name, where)
    offsets = _numpy(lists.offsets)
    values = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    offsets = (offsets - offsets[0]).astype(np.int64)
    if values.null_count:
        position = int(np.argmax(values.is_null().to_numpy(zero_copy_only=False)))
        raise where.error(_row_of(position, offsets), column.name, "[..., null, ...]", "ids without null")
    ids = _numpy(values)
    _check_ids(ids, column, where, offsets)
    return ids, offsets


def _check_ids(ids: np.ndarray, column: Categorical, where: _Where, offsets: np.ndarray | None = None) -> None:
    unsigned = ids.view(np.uint64)  # a negative id becomes a huge one: one pass finds both faults
    if unsigned.size and unsigned.max() >= column.num_ids:
        position = int(np.argmax(unsigned >= column.num_ids))
        row = position if offsets is None else _row_of(position, offsets)
        raise where.error(row, column.name, ids[position], f"an id from 0 to {column.num_ids - 1}")


def _row_of(position: int, offsets: np.ndarray) -> int:
    return int(np.searchsorted(offsets, position, side="right")) - 1


def _dense(table: pa.Table, name: str, where: _Where) -> np.ndarray:
    values = _numpy(_array(table, name, where))
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise where.error(row, name, values[row], "a finite number")
    return values


def _labels(table: pa.Table, name: str | None, where: _Where) -> np.ndarray:
    if name is None:
        return np.ones(len(table), np.float32)
    labels = _numpy(_array(table, name, where))
    valid = (labels == 0) | (labels == 1)
    if not valid.all():
        row = int(np.argmin(valid))
        raise where.error(row, name, labels[row], "a label, 0 or 1")
    return labels
