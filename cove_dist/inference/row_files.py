"""Rows of files, a part at a time, and of tables: the formats of Parquet and CSV files that requests may have."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq

from cove_dist.errors import ConfigError
from data_pipeline.errors import DataError
from data_pipeline.preparation.csv_header import read_header
from data_pipeline.preparation.formats import is_parquet, is_text, kind_of, open_binary
from data_pipeline.preparation.local_files import is_pattern, listed_files
from data_pipeline.preparation.partitions import partitions

_ROWS = 65_536  # rows per part of a file
# Arrow's error for a value that does not fit the type of its column
_MISFIT = re.compile(r"In CSV column #(\d+): .*CSV conversion error to \w+: invalid value '(.*)'", re.DOTALL)

_BLOCK = 1 << 24  # bytes of CSV that are parsed at a time, as in preparation: no row may be longer
# Words of Arrow's errors, and what to do
_REMEDIES = {
    "straddling": "a quote that is not closed joins the lines after it, or a row is longer than 16 MB. Close it",
    "invalid UTF8": "not UTF-8. Convert the file, for example: iconv -f LATIN1 -t UTF-8",
}


def as_table(rows: Any, key: str, also: str = "") -> pa.Table:
    """Return a table of Arrow, a record batch or a data frame as a table of Arrow.

    Args:
        rows: A ``pyarrow.Table`` or ``RecordBatch``, a data frame of pandas, or one that can be passed to Arrow.
        key: The argument, for errors.
        also: What else is allowed, for errors.

    Raises:
        ConfigError: It is something else.
    """
    try:
        return rows if isinstance(rows, pa.Table) else pa.table(rows)
    except (TypeError, ValueError, pa.ArrowException) as error:  # ValueError: of dictionaries of columns too
        raise ConfigError(
            f"{key}: of type {type(rows).__name__}; give {also}a pyarrow.Table, a RecordBatch, a DataFrame, or the path"
            f" of a Parquet or CSV file: {error}"
        ) from error


def read_rows(path: Path, types: Mapping[str, pa.DataType], key: str = "rows") -> Iterator[pa.Table]:
    """Read a Parquet or CSV file, or all files of a folder or glob in order of their names, a part at a time.

    CSV files may be compressed (.gz, .zst), and their delimiter is a comma, tab, semicolon or bar, as for preparation.
    A column of ``types`` that a file lacks may be in the names of its folders: ``country=DE/part.parquet``.

    Args:
        path: File, folder or glob.
        types: Types of columns of CSV files; others are text, as they are written. Columns of int64 are text if some
            value in the files is not a whole number.
        key: The setting that names it, for errors.

    Raises:
        ConfigError: A file cannot be read, is neither Parquet nor CSV, has a value that does not fit the type of its
            column, or has other columns than the first; or there is none.
    """
    return _read(_files(path, key), types, path, key)


def _read(files: Sequence[Path], types: Mapping[str, pa.DataType], path: Path, key: str) -> Iterator[pa.Table]:
    first: pa.Schema | None = None
    types = settled(files, types)
    for file in files:
        before = first
        try:
            for part in _parts(file, types):
                first = part.schema if first is None else first
                yield part if part.schema.equals(first) else part.select(first.names).cast(first)
        except (OSError, KeyError, ValueError, pa.ArrowException, DataError) as error:
            raise ConfigError(f"{key} = {file}: {_reason(file, error, before)}") from error


def _reason(file: Path, error: Exception, before: pa.Schema | None) -> str:
    """Explain why a file cannot be read, after files with the schema ``before``, if there were any."""
    if misfit := _MISFIT.search(str(error)):
        name = read_header(file, [])[0][int(misfit[1])]
        return f"column {name!r}: {misfit[2]!r} is no number. Correct it; a missing value is an empty field"
    if isinstance(error, DataError):
        return str(error).removeprefix(f"{file}: ")
    if remedy := next((text for words, text in _REMEDIES.items() if words in str(error)), None):
        return remedy
    if before is not None:
        return f"other columns than those before it, {before}: {error}"
    return f"neither Parquet nor CSV with a header: {error}"


def _files(path: Path, key: str) -> list[Path]:
    """Return a file, or all files of a folder or glob but those that Spark and others hide."""
    several = path.is_dir() or is_pattern(str(path))
    found = listed_files(str(path)) if several else [path]
    if not found:
        raise ConfigError(f"{key} = {path}: has no Parquet or CSV files")
    if not several:
        require_file(path, key)
    kinds = {kind_of(file) for file in found}
    for file in found:
        kind = kind_of(file)
        if path.is_dir() and kind == "CSV" and ("Parquet" in kinds or not is_text(file)):
            kind = "CSV next to Parquet" if is_text(file) else "neither by its name"
        if kind not in ("Parquet", "CSV"):
            rest = f"; or name the others, such as {path / '*.parquet'}" if path.is_dir() else ""
            raise ConfigError(f"{key} = {file}: {kind}, and Parquet and CSV are read. Convert it{rest}")
    return found


def require_file(path: Path, key: str, also: str = "") -> None:
    """Raise `ConfigError` for a path without a file.

    Args:
        path: The path.
        key: The setting that names it.
        also: What else the setting may be.
    """
    if not path.exists():
        raise ConfigError(f"{key} = {path}: no such file{also}. Relative paths start at {Path.cwd()}")


def settled(files: Sequence[Path], types: Mapping[str, pa.DataType], header: bool = True) -> Mapping[str, pa.DataType]:
    """Return the types of columns of CSV files, which hold every value of those that were int64.

    Without this, the type would depend on the first megabyte, and a later value of another kind would be an error.

    Args:
        files: The files.
        types: Types by column.
        header: Whether the files have a header line.
    """
    whole = {name: kind for name, kind in types.items() if kind == pa.int64()}
    tables = [file for file in files if not is_parquet(file)]
    if not whole or not tables or _fit(tables, whole, header):
        return types
    odd = [name for name, kind in whole.items() if not _fit(tables, {name: kind}, header)]
    return {**types, **dict.fromkeys(odd, pa.string())}  # float64 would round ids beyond 2^53


def _fit(files: Sequence[Path], types: Mapping[str, pa.DataType], header: bool) -> bool:
    """Return whether all values of some columns have these types; faults of the files are found by who reads them."""
    try:
        for file in files:
            for _ in read_csv(file, types, only=list(types), header=header):
                pass
    except (OSError, pa.ArrowException, DataError):
        return False
    return True


def _parts(file: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    folders = {name: value for name, value in partitions(file).items() if name in types}
    for batch in _batches(file, types):
        part = pa.Table.from_batches([batch])
        for name, value in folders.items():
            if name not in part.column_names:
                kind = types[name] if pa.types.is_floating(types[name]) else pa.string()
                part = part.append_column(name, pa.array([value] * len(part), pa.string()).cast(kind))
        yield part


def _batches(file: Path, types: Mapping[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    if is_parquet(file):
        with pq.ParquetFile(file) as opened:
            yield from opened.iter_batches(_ROWS)
        return
    for batch in read_csv(file, types):
        yield from (batch.slice(start, _ROWS) for start in range(0, batch.num_rows, _ROWS))


def read_csv(
    file: Path, types: Mapping[str, pa.DataType], *, only: Sequence[str] = (), header: bool = True
) -> Iterator[pa.RecordBatch]:
    """Read a CSV file as preparation does: only empty fields are null, and quotes may hold line breaks.

    Args:
        file: The file; it may be compressed.
        types: Types by column; others of a file with a header line are text.
        only: The columns to read, which are null where the file lacks them; all if there are none.
        header: Whether the first line names the columns; otherwise they are ``f0``, ``f1``, … between commas.

    Returns:
        At least one batch; the last one may be empty.

    Raises:
        DataError: The file is of another format, or a quote is not closed.
    """
    names, delimiter = read_header(file, []) if header else ([], ",")
    last = delimiter * (len(names) - 1) if len(names) > 1 else '""'  # a row of nulls, unless a quote is open before it
    with (
        open_binary(file) as stream,
        csv.open_csv(
            _Extended(stream, f"\n{last}\n".encode()) if names else stream,
            read_options=csv.ReadOptions(autogenerate_column_names=not header, block_size=_BLOCK),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                column_types={**dict.fromkeys(names, pa.string()), **types},
                strings_can_be_null=True,
                null_values=[""],
                include_columns=list(only),
                include_missing_columns=bool(only),
            ),
        ) as reader,
    ):
        yield from _without_last_row(file, reader) if names else reader


class _Extended(io.RawIOBase):
    """A stream of bytes with others after its end."""

    def __init__(self, stream: BinaryIO, end: bytes) -> None:
        self._stream, self._end = stream, io.BytesIO(end)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        filled, size = 0, len(buffer)  # filled as far as possible: Arrow needs a whole line in the first block
        while filled < size and (part := self._stream.read(size - filled) or self._end.read(size - filled)):
            buffer[filled : filled + len(part)] = part
            filled += len(part)
        return filled


def _without_last_row(file: Path, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield batches without their last row, which has no values.

    Raises:
        DataError: It has some: a quote that is not closed joins it with lines before it.
    """
    held = None
    for batch in batches:
        if held is not None and batch.num_rows:
            yield held
        held = batch if batch.num_rows or held is None else held
    if held is None or any(column[-1].is_valid for column in held):
        raise DataError(f"{file}: a quote that is not closed joins the lines after it. Close it")
    yield held.slice(0, held.num_rows - 1)
