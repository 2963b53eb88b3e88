"""Files of interactions -> the table ``raw``: the named columns, rows in order, and the file of each row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE
from data_pipeline.preparation.delimited import OnInvalid, csv_scan
from data_pipeline.preparation.formats import explain, kind_of, open_binary, refuse_json_documents, refuse_other_formats
from data_pipeline.preparation.malformed import keep_malformed, malformed_lines, refuse_lost_lines
from data_pipeline.preparation.parquet import parquet_scans
from data_pipeline.preparation.workspace import UnreadableFile, Workspace, literal, quoted, scan_path

_POSITION = f"rowid - (SELECT min(rowid) FROM raw AS other WHERE other.{FILE} = raw.{FILE}) + 1"


@dataclass(frozen=True)
class Rule:
    """What a valid row must satisfy.

    Attributes:
        column: Column of ``raw``.
        reason: Description of a row that breaks the rule.
        broken: SQL over ``raw``, true for the rows that break the rule.
        remedy: What to do other than leaving such rows out.
    """

    column: str
    reason: str
    broken: str
    remedy: str = "Correct it"


@dataclass(frozen=True)
class Source:
    """What was read into ``raw``.

    Attributes:
        description: Origin of the rows, for messages and the report.
        text: Whether every column is text whose type must be found from its values (CSV).
        dropped: Rows that could not be read, by reason.
        rules: Rules of this source, checked before those of the columns.
        float32: Files by column in which it is of float32, which rounds whole numbers beyond 2^24.
        position: SQL over ``raw`` for the position of a row in its file, from 1.
        categories: Further knowledge about ids, per id column: a SELECT of ``original_id``, each once, and a
            column per kind of category: an int, text or list of text, null where an id has none. It may
            contain ids that no row has.
    """

    description: str
    text: bool
    dropped: dict[str, int] = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    float32: dict[str, list[Path]] = field(default_factory=dict)
    position: str = _POSITION
    categories: dict[str, str] = field(default_factory=dict)

    def find(self, workspace: Workspace, column: str, row: int) -> tuple[str | None, str, int]:
        """Return the value of a column, the file and the position in the file of a row of ``raw``."""
        value, file, position = workspace.row(row, f"{quoted(column)}::VARCHAR, {FILE}, {self.position}")
        return value, file, position

    def show(self, workspace: Workspace, column: str, row: int) -> str:
        """Describe a value of a column with its row and file, for messages."""
        value, file, position = self.find(workspace, column, row)
        return f"{value!r} in data row {position} of {file}"


def read_files(
    workspace: Workspace,
    files: Sequence[Path],
    columns: Sequence[str],
    on_invalid: OnInvalid,
    description: str,
    added: Mapping[str, Mapping[Path, str]] | None = None,
) -> Source:
    """Read files of one kind into ``raw``: CSV with a header line, JSON lines, Parquet or Arrow.

    The delimiter of CSV is a comma, tab, semicolon or bar.

    Args:
        workspace: Workspace that holds the table.
        files: All of one kind.
        columns: Columns to read.
        on_invalid: "error" refuses lines that cannot be read, "drop" leaves them out and counts them.
        description: Origin of the files, for messages.
        added: Further columns: the text that all rows of a file have.

    Raises:
        DataError: A file is truncated, corrupt or of another format, lacks a column (the message lists those it has),
            contains a CSV line with the wrong number of fields (unless ``on_invalid`` is "drop"), a quote that is not
            closed, or has another type for a column than the files before it, where no type represents both without
            loss.
    """

    def with_added(file: Path, scan: str) -> tuple[Path, str]:
        values = (f", {literal(texts[file])} AS {quoted(name)}" for name, texts in (added or {}).items())
        return file, f"SELECT *{''.join(values)} FROM ({scan})"

    kind = kind_of(files[0])
    if kind == "JSON lines":
        scans = (with_added(file, json_scan(file, columns, on_invalid)) for file in files)
        ingest(workspace, scans, on_invalid=on_invalid, delimited=False)
        _require_values(workspace, files[0], columns)
        return Source(description, text=True)
    if kind in ("Parquet", "Arrow"):
        typed, float32 = parquet_scans(workspace, files, columns)
        ingest(workspace, (with_added(file, scan) for file, scan in typed))
        return Source(description, text=False, float32=float32)
    ingest(workspace, (with_added(file, csv_scan(file, columns, on_invalid)) for file in files), on_invalid=on_invalid)
    refuse_lost_lines(workspace, files, columns, on_invalid)
    return Source(description, text=True, dropped=malformed_lines(workspace, on_invalid))


def json_scan(file: Path, columns: Sequence[str], on_invalid: OnInvalid) -> str:
    """Return a SELECT of ``columns``, as text, over a file with a JSON object per line; absent keys are null."""
    refuse_other_formats(file)
    refuse_json_documents(file)
    types = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in columns)
    ignore = ", ignore_errors = true" if on_invalid == "drop" else ""  # lines that are not JSON become rows of nulls
    return f"SELECT * FROM read_json({scan_path(file)}, format = 'newline_delimited', columns = {{{types}}}{ignore})"


def _require_values(workspace: Workspace, first: Path, columns: Sequence[str]) -> None:
    """Refuse a column without any value in JSON lines: no line has its key."""
    counts = ", ".join(f"count({quoted(name)}) AS c{number}" for number, name in enumerate(columns))
    sums = ", ".join(f"sum(c{number})" for number in range(len(columns)))
    [found] = workspace.query(f"SELECT {sums} FROM {workspace.over_raw(f'SELECT {counts} FROM raw')}")
    for column, count in zip(columns, found, strict=True):
        if not count:
            with open_binary(first) as stream:
                line = stream.readline(1 << 20).decode(errors="replace").strip()
            raise DataError(f"{first}: no line has a value for {column!r}. The first line is: {line[:200]}")


def ingest(
    workspace: Workspace,
    scans: Iterable[tuple[Path, str]],
    table: str = "raw",
    form: str | None = None,
    on_invalid: OnInvalid = "error",
    delimited: bool = True,
) -> None:
    """Run one SELECT per file into ``table``; see `Workspace.load`.

    Args:
        workspace: Workspace for the table.
        scans: Files and their SELECTs.
        table: Name of the table.
        form: Of text without a header line: what a line is, for errors.
        on_invalid: "drop": invalid lines were left out.
        delimited: Whether the files are delimited text, of which `keep_malformed` keeps what was left out.
    """
    try:
        workspace.load(table, scans, FILE, keep_malformed if delimited and on_invalid == "drop" else None)
    except UnreadableFile as failure:
        error = cast(Exception, failure.__cause__)
        reason = explain(failure.file, error, form, droppable=on_invalid == "error")
        raise DataError(f"{failure.file}: cannot be read: {reason}") from error
