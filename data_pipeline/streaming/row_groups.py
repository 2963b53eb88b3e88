"""The Parquet row groups of a split, and their rows read in sequence."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.digests import (
    FileDigest,
    Signature,
    check_digest,
    check_row_group,
    digest_footer,
    row_group_digests,
    signature,
)
from data_pipeline.errors import DataError
from data_pipeline.parquet_files import open_parquet
from data_pipeline.schema import Schema
from data_pipeline.streaming.columns import REMEDY, ColumnArrays, Where, check_columns, column_names
from data_pipeline.streaming.order import Slice
from data_pipeline.streaming.partition import row_block

AT_ONCE = 65_536  # rows that are decoded at a time: a row group of prepared files


@dataclass(frozen=True)
class RowGroups:
    """The G row groups of a split, in file order, from the footers of the files.

    Attributes:
        paths: The files of the split.
        file: int64 ``[G]``, the file of every row group.
        index: int64 ``[G]``, the index of every row group in its file.
        rows: int64 ``[G]``, rows of every row group.
        digests: Digests of the files: those of the schema or, without any, of the footers as they were found.
    """

    paths: tuple[Path, ...]
    file: np.ndarray
    index: np.ndarray
    rows: np.ndarray
    digests: tuple[FileDigest, ...]

    def __len__(self) -> int:
        return len(self.rows)


def read_footers(folder: Path, schema: Schema, split: str) -> RowGroups:
    """Read the footers of the files of a split and compare them with the schema.

    Raises:
        DataError: The split is unknown, a file is missing, damaged or altered, a column is missing or has the wrong
            type, or the number of rows is not that of the schema.
    """
    if split not in schema.splits:
        raise DataError(f"{folder}: no split {split!r}; schema.json has: {', '.join(schema.splits)}. {REMEDY}")
    names = schema.splits[split].files
    paths = tuple(folder / name for name in names)
    index, rows, digests = [], [], []
    for name, path in zip(names, paths, strict=True):
        with _reading(path), open_parquet(path) as file:
            footer, arrow_schema = file.metadata, file.schema_arrow
        _check_types(path, arrow_schema, schema)
        digests.append(schema.digests.get(name) or digest_footer(path))
        _check_digest(path, digests[-1], schema)
        index.append(np.arange(footer.num_row_groups))
        rows.append([footer.row_group(i).num_rows for i in range(footer.num_row_groups)])
    groups = RowGroups(
        paths,
        file=np.repeat(np.arange(len(paths)), [len(file_rows) for file_rows in rows]),
        index=np.concatenate([*index, np.empty(0, np.int64)]).astype(np.int64),
        rows=np.concatenate([*rows, np.empty(0, np.int64)]).astype(np.int64),
        digests=tuple(digests),
    )
    found, declared = int(groups.rows.sum()), schema.splits[split].rows
    if found != declared:
        raise DataError(f"{folder}: files of {split} have {found} rows, but schema.json has {declared}. {REMEDY}")
    return groups


class RowReader:
    """Reads the rows of slices of row groups in sequence, and decodes only the requested rows.

    In memory are one open file, the encoded columns of one row group, and up to ``at_once`` decoded rows. Nothing is
    memory-mapped, so the resident memory of an epoch does not grow with its rows.

    Args:
        groups: Row groups of the split.
        schema: Schema of the columns to read.
        parts: Parts to read, in this order; a row group that follows itself is opened again.
        at_once: Rows to decode at a time.
        digests: Whether to compare row groups with their digests, for which all of their bytes are read. Pages are
            compared with their checksums in any case.
    """

    def __init__(
        self, groups: RowGroups, schema: Schema, parts: Iterable[Slice], at_once: int = AT_ONCE, *, digests: bool = True
    ) -> None:
        self._groups = groups
        self._schema = schema
        self._at_once = at_once
        self._check_digests = digests
        self._names = column_names(schema)
        self._path: Path | None = None
        self._file: pq.ParquetFile | None = None
        self._digests: list[tuple[int, int, str]] = []  # of the row groups of the file
        self._decoded = self._decode(parts)
        self._left: ColumnArrays | None = None  # decoded, and not yet read

    def read(self, rows: int) -> Iterator[ColumnArrays]:
        """Yield the next ``rows`` rows in pieces, which are views of decoded columns where Arrow allows.

        Raises:
            DataError: A file is damaged, or `check_columns` refuses a value.
        """
        while rows:
            decoded, self._left = self._left or next(self._decoded), None
            if rows < len(decoded):
                self._left = decoded.rows(rows, len(decoded))
                decoded = decoded.rows(0, rows)
            rows -= len(decoded)
            yield decoded

    def close(self) -> None:
        """Close the file."""
        self._decoded.close()
        self._left = None
        if self._file is not None:
            self._file.close()
        self._path = self._file = None

    def _decode(self, parts: Iterable[Slice]) -> Generator[ColumnArrays, None, None]:
        for group, start, stop in parts:
            number, index = int(self._groups.file[group]), int(self._groups.index[group])
            path = self._groups.paths[number]
            with _reading(path):
                file = self._open(number)
                if self._check_digests and self._digests:
                    check_row_group(path, index, *self._digests[index])
                batches = file.iter_batches(self._at_once, row_groups=[index], columns=self._names, use_threads=False)
            row = 0
            while row < stop:
                with _reading(path):
                    batch = next(batches)
                first, row = row, row + len(batch)
                begin, end = max(start - first, 0), min(stop, row) - first
                if begin < end:
                    yield check_columns(
                        batch.slice(begin, end - begin), self._schema, Where(path, index, first + begin)
                    )

    def _open(self, number: int) -> pq.ParquetFile:
        path = self._groups.paths[number]
        if self._file is None or path != self._path:
            if self._file is not None:
                self._file.close()
            footer, self._digests = _checked_footer(path, signature(path), self._groups.digests[number])
            self._path, self._file = path, open_parquet(path, footer)
        return self._file


@lru_cache(maxsize=64)
def _checked_footer(
    path: Path, _: Signature, expected: FileDigest
) -> tuple[pq.FileMetaData, list[tuple[int, int, str]]]:
    """Return the footer of a file, once compared with its digest, and the digests of the row groups."""
    check_digest(path, expected)
    footer = pq.read_metadata(path)
    return footer, row_group_digests(footer)


def read_split(
    groups: RowGroups, schema: Schema, rank: int = 0, world_size: int = 1, *, digests: bool = True
) -> Iterator[ColumnArrays]:
    """Yield the rows of a split, or of a rank's block of its row groups, in file order and in pieces.

    Args:
        groups: Row groups of the split.
        schema: Schema of the columns to read.
        rank, world_size: Rank whose rows are read, and number of ranks.
        digests: As in `RowReader`.

    Raises:
        DataError: See `RowReader.read`.
    """
    first, end = row_block(len(groups), rank, world_size)
    parts = [Slice(group, 0, int(groups.rows[group])) for group in range(first, end)]
    with closing(RowReader(groups, schema, parts, digests=digests)) as reader:
        yield from reader.read(sum(part.stop for part in parts))


def read_user_ends(groups: RowGroups, schema: Schema) -> np.ndarray:
    """Return the row after the last one of every user, in a split sorted by user: int64 ``[users]``.

    Only the user column is read, so the digests of the row groups are compared when the rows themselves are read.

    Raises:
        DataError: The rows are not sorted by user, or an id is invalid.
    """
    column = schema.entity("user")
    only_users = replace(schema, categorical=(column,), dense=(), label=None, learned=(), weight=None)
    ends, before, last = [], 0, -1
    for part in read_split(groups, only_users, digests=False):
        users = np.concatenate([[last], part.ids[0]])
        step = np.diff(users)
        if (step < 0).any():
            row = int(np.argmax(step < 0))
            expected = f"rows sorted by user; {users[row]} is before it"
            raise part.where.error(row, column.name, users[row + 1], expected)
        ends.append(np.flatnonzero(step) + before)
        before, last = before + len(part), users[-1]
    # A change of user ends the previous user; the first "change", at row 0, ends no user.
    return np.append(np.concatenate([*ends, np.empty(0, np.int64)])[1:], before).astype(np.int64)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. {REMEDY}") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}. {REMEDY}") from error


def _check_digest(path: Path, expected: FileDigest, schema: Schema) -> None:
    """Compare a file with its digest; of an altered one, report what is wrong with its values where something is."""
    try:
        check_digest(path, expected)
    except DataError:
        with _reading(path), open_parquet(path) as file:
            for group in range(file.num_row_groups):
                for batch in file.read_row_group(group, column_names(schema)).to_batches():
                    check_columns(batch, schema, Where(path, group, 0))
        raise


def _check_types(path: Path, found: pa.Schema, schema: Schema) -> None:
    expected = {c.name: "list<int64>" if c.sequence else "int64" for c in schema.categorical}
    expected |= {c.name: "float" for c in schema.dense}
    expected |= {name: "float" for name in (*schema.label_columns, schema.weight) if name is not None}
    expected |= {name: kind for name, kind in schema.stored.items() if name in expected}
    for name, type_name in expected.items():
        if name not in found.names:
            raise DataError(f"{path}: no column {name!r}; the columns are {', '.join(found.names)}. {REMEDY}")
        column = found.field(name).type
        actual = f"list<{column.value_type}>" if pa.types.is_list(column) else str(column)
        if actual != type_name:
            raise DataError(f"{path}: column {name!r} is {actual}, expected {type_name}. {REMEDY}")
