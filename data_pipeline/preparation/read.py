"""CSV and Parquet files -> the table ``raw``: the columns that are named, rows in their order, the file of each row."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import pyarrow as pa

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE
from data_pipeline.preparation.delimited import OnInvalid, count_lines, csv_scan
from data_pipeline.preparation.formats import explain, explain_lost_lines, is_parquet
from data_pipeline.preparation.parquet import parquet_scans
from data_pipeline.preparation.workspace import Workspace, literal, quoted

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

    def find(self, workspace: Workspace, column: str, row: int) -> tuple[str | None, str, int]:
        """Value of a column, file, and place in it, of a row of ``raw``."""
        [found] = workspace.query(
            f"SELECT {quoted(column)}::VARCHAR, {FILE}, {self.place} FROM raw WHERE rowid = {row}"
        )
        return found

    def show(self, workspace: Workspace, column: str, row: int) -> str:
        """A value of a column with its row and file, for messages."""
        value, file, place = self.find(workspace, column, row)
        return f"{value!r} in data row {place} of {file}"


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


def read_files(
    workspace: Workspace, files: Sequence[Path], columns: Sequence[str], on_invalid: OnInvalid, description: str
) -> Source:
    """Read CSV files with a header line, or Parquet files, into ``raw``. Delimiters: comma, tab, semicolon or bar.

    Raises:
        DataError: a file is truncated, corrupt or of another format, lacks a column (the message lists those it has),
            holds a CSV line with the wrong number of fields (unless `on_invalid` is "drop"), or has another type for a
            column than the files before it, where no type holds both without loss.
    """
    if is_parquet(files[0]):
        ingest(workspace, parquet_scans(workspace, files, columns))
        return Source(description, text=False)
    ingest(workspace, ((file, csv_scan(file, columns, on_invalid)) for file in files))
    lost = _refuse_lost_lines(workspace, files, columns, on_invalid)
    return Source(description, text=True, dropped={"malformed CSV line": lost} if lost else {})


def _refuse_lost_lines(
    workspace: Workspace, files: Sequence[Path], columns: Sequence[str], on_invalid: OnInvalid
) -> int:
    """The lines of CSV files that are not in ``raw``; a `DataError` for one, unless `on_invalid` is "drop"."""
    read, lost = dict(workspace.query(f"SELECT {FILE}, count(*) FROM raw GROUP BY {FILE}")), 0
    for file in files:
        missing = count_lines(file, columns) - read.get(str(file), 0)
        if missing and on_invalid == "error":
            raise DataError(f"{file}: {missing} lines cannot be read: {explain_lost_lines(file)}")
        lost += missing
    return lost


def ingest(workspace: Workspace, scans: Iterable[tuple[Path, str]], table: str = "raw") -> None:
    """Run one SELECT per file into `table`. DuckDB keeps the order, so ``rowid`` counts rows as the files have them."""
    for number, (file, select) in enumerate(scans):
        workspace.on_progress(f"reading {file}")
        statement = f"INSERT INTO {table}" if number else f"CREATE TABLE {table} AS"
        try:
            workspace.query(f"{statement} SELECT *, {literal(str(file))} AS {FILE} FROM ({select})")
        except (duckdb.Error, pa.ArrowInvalid) as error:
            raise DataError(f"{file}: cannot be read: {explain(file, error)}") from error
