"""CSV and Parquet files -> the table ``raw``: the columns asked for, rows in their order, and the file of each row."""

from __future__ import annotations

import csv
import glob
import gzip
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE
from data_pipeline.preparation.workspace import Workspace, literal, quoted

OnInvalid = Literal["error", "drop"]
_DELIMITERS = ",\t;|"
_PLACE = f"rowid - (SELECT min(rowid) FROM raw AS other WHERE other.{FILE} = raw.{FILE}) + 1"


@dataclass(frozen=True)
class Rule:
    """`broken` is SQL over ``raw``: true for the rows that break the rule."""

    column: str
    reason: str
    broken: str


@dataclass(frozen=True)
class Source:
    """What was read into ``raw``.

    Attributes:
        description: where the rows come from, for messages and the report.
        text: every column is text whose type is still to be found (CSV).
        dropped: rows that could not be read, by reason.
        rules: of this source alone, checked before those of the columns.
        place: SQL over ``raw`` for the place of a row in its file, from 1.
        categories: what is known of ids beside the rows, per id column: a SELECT of ``original_id``, each once, and a
            column per kind of category: an int, text or list of text, null where an id has none. It may hold ids that
            no row has.
    """

    description: str
    text: bool
    dropped: dict[str, int] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    place: str = _PLACE
    categories: dict[str, str] = field(default_factory=dict)


def find_files(source: str) -> list[Path]:
    """The files of a path or a glob, sorted by name.

    Raises:
        DataError: there is none, one has no bytes, or some are Parquet and some are not.
    """
    if Path(source).is_dir():
        raise DataError(f"{source}: is a folder. Name its files with a glob: data.source='{source}/*.parquet'")
    is_glob = not Path(source).exists() and any(character in source for character in "*?[")
    files = sorted(map(Path, glob.glob(source, recursive=True))) if is_glob else [Path(source)]
    files = [file for file in files if file.is_file()]
    if not files:
        reason = "no file matches this pattern" if is_glob else "no such file"
        raise DataError(f"{source}: {reason}. Correct data.source; relative paths start at {Path.cwd()}")
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: the file is empty (0 bytes). Write it again, or leave it out of data.source")
    if len({is_parquet(file) for file in files}) > 1:
        raise DataError(f"{source}: matches Parquet files and others. Narrow data.source to one kind")
    return files


def is_parquet(file: Path) -> bool:
    return file.suffix.lower() in (".parquet", ".pq")


def read_files(
    workspace: Workspace, files: Sequence[Path], columns: Sequence[str], on_invalid: OnInvalid, description: str
) -> Source:
    """Read CSV files with a header line, or Parquet files, into ``raw``. Delimiters: comma, tab, semicolon or bar.

    Raises:
        DataError: a file is truncated or corrupt, lacks a column (the message lists those it has), or holds a CSV line
            with the wrong number of fields (unless `on_invalid` is "drop").
    """
    text = not is_parquet(files[0])
    scans = ((file, csv_scan(file, columns, on_invalid) if text else parquet_scan(file, columns)) for file in files)
    ingest(workspace, scans)
    return Source(description, text, malformed_lines(workspace))


def ingest(workspace: Workspace, scans: Iterable[tuple[Path, str]], table: str = "raw") -> None:
    """Run one SELECT per file into `table`. DuckDB keeps the order, so ``rowid`` counts rows as the files have them."""
    for number, (file, select) in enumerate(scans):
        workspace.on_progress(f"reading {file}")
        statement = f"INSERT INTO {table}" if number else f"CREATE TABLE {table} AS"
        try:
            workspace.query(f"{statement} SELECT *, {literal(str(file))} AS {FILE} FROM ({select})")
        except (duckdb.Error, pa.ArrowInvalid) as error:
            reason = str(error).partition("Possible fixes")[0].strip()
            hint = "It may be corrupt: write it again"
            if not is_parquet(file):
                hint = "Correct the file, or leave malformed lines out, counted in report.json: data.on_invalid=drop"
            raise DataError(f"{file}: cannot be read: {reason}. {hint}") from error


def malformed_lines(workspace: Workspace) -> dict[str, int]:
    """CSV lines that were left out, as DuckDB recorded them."""
    if not workspace.query("SELECT 1 FROM duckdb_tables() WHERE table_name = 'reject_errors'"):
        return {}
    [(count,)] = workspace.query("SELECT count(DISTINCT (scan_id, file_id, line)) FROM reject_errors")
    return {"malformed CSV line": count} if count else {}


def csv_scan(file: Path, columns: Sequence[str], on_invalid: OnInvalid) -> str:
    """A SELECT over a CSV file with a header line: `columns`, as text."""
    opener = gzip.open if file.suffix.lower() == ".gz" else open
    try:
        with opener(file, "rt", encoding="utf-8-sig", newline="") as stream:
            header = stream.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(f"{file}: cannot be read as text: {error}. CSV must be UTF-8, plain or .gz") from error
    names, delimiter = max(
        ((next(csv.reader([header], delimiter=d), []), d) for d in _DELIMITERS), key=lambda c: len(c[0])
    )
    require_columns(file, columns, names)
    return delimited_scan(file, names, delimiter, columns, quote='"', header=True, on_invalid=on_invalid)


def delimited_scan(
    file: Path,
    names: Sequence[str],
    delimiter: str,
    columns: Sequence[str],
    *,
    quote: str = "",
    header: bool,
    encoding: str = "utf-8",
    on_invalid: OnInvalid,
) -> str:
    """A SELECT over delimited text whose columns are `names`. Nothing is guessed from the first rows."""
    types = ", ".join(f"'c{place}': 'VARCHAR'" for place in range(len(names)))
    chosen = ", ".join(f"c{names.index(column)} AS {quoted(column)}" for column in columns)
    rejects = ", store_rejects = true" if on_invalid == "drop" else ""
    return (
        f"SELECT {chosen} FROM read_csv({_path(file)}, auto_detect = false, header = {header},"
        f" delim = {literal(delimiter)}, quote = {literal(quote)}, escape = {literal(quote)},"
        f" encoding = {literal(encoding)}, columns = {{{types}}}{rejects})"
    )


def parquet_scan(file: Path, columns: Sequence[str]) -> str:
    """A SELECT over a Parquet file: `columns`, in their types."""
    try:
        names = pq.read_schema(file).names
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read as Parquet: {error} It may be truncated: write it again") from error
    require_columns(file, columns, names)
    return f"SELECT {', '.join(map(quoted, columns))} FROM read_parquet({_path(file)})"


def _path(file: Path) -> str:
    return literal(glob.escape(str(file)))  # DuckDB takes every path for a glob


def require_columns(file: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    """Raise a `DataError` for the first of `columns` that is not among `names`, or that is there twice."""
    folded = [name.casefold() for name in names]  # SQL does not tell upper from lower case
    for column in columns:
        if column not in names or folded.count(column.casefold()) > 1:
            problem = "no column" if column not in names else "more than one column"
            raise DataError(f"{file}: {problem} {column!r}. The columns are: {', '.join(names)}")
