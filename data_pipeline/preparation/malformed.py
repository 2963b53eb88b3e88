"""Lines of delimited text that were left out: their number, and that no others were lost with them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE
from data_pipeline.preparation.csv_header import is_header_only, read_header
from data_pipeline.preparation.delimited import OnInvalid
from data_pipeline.preparation.formats import explain, explain_lost_lines, open_binary
from data_pipeline.preparation.workspace import MALFORMED, Workspace, literal

_BLOCK = 1 << 24  # bytes that Arrow parses at a time, and of the longest row
_LONG = 9_000  # bytes; DuckDB cuts what it keeps of an invalid row after 10,000


def keep_malformed(table: str, file: Path) -> str:
    """Return the SELECT of what is kept about the invalid rows of a file that was read into a table.

    DuckDB records them in tables of the connection, which are gone when a preparation is resumed. A quote that is
    closed in a later line makes one row of several lines.
    """
    name = literal(str(file))
    lines = r"string_split_regex(ltrim(csv_line, chr(10) || chr(13)), '\r\n|\r|\n')"  # without empty ones before it
    return f"""
        SELECT {literal(table)} AS loaded, {name} AS file, count(*) AS rows,
            coalesce(sum(lines) FILTER (NOT cut), 0)::BIGINT AS lines,
            coalesce(list(start ORDER BY start) FILTER (cut), []) AS starts
        FROM (
            SELECT min(line_byte_position) AS start, max(len({lines})) AS lines,
                lines > 1 AND max(strlen(csv_line)) > {_LONG} AS cut
            FROM reject_errors WHERE scan_id = (SELECT max(scan_id) FROM reject_scans WHERE file_path = {name})
            GROUP BY file_id, line
        )"""


def malformed_lines(workspace: Workspace, on_invalid: OnInvalid, table: str = "raw") -> dict[str, int]:
    """Count the lines that were left out of a table, as `keep_malformed` kept them."""
    if on_invalid == "error":
        return {}
    found = workspace.inspect(f"SELECT file, lines, starts FROM {MALFORMED} WHERE loaded = {literal(table)}")
    count = sum(lines + (_lines_of_rows(Path(file), starts) if starts else 0) for file, lines, starts in found)
    return {"malformed CSV line": count} if count else {}


def _lines_of_rows(file: Path, starts: Sequence[int]) -> int:
    """Count the lines of the rows of a CSV file that begin at some bytes, in ascending order."""
    delimiter = re.escape(read_header(file, [])[1].encode())
    field = rb'(?:"[^"]*(?:""[^"]*)*"?)?[^\r\n' + delimiter + rb"]*"
    row = re.compile(rb"[\r\n]*(" + field + rb"(?:" + delimiter + field + rb")*)")
    lines, text, begin = 0, b"", 0  # the text of the file from the byte ``begin``
    with open_binary(file) as stream:
        for start in starts:
            while begin + len(text) < start + _BLOCK and (part := stream.read(_BLOCK)):
                passed = min(len(text), max(start - begin - 1, 0))
                text, begin = text[passed:] + part, begin + passed
            before = max(start - begin - 1, 0)  # DuckDB leaves out the first quote of some rows
            if found := row.match(text, before):
                lines += len(found[1].splitlines())
    return lines


def warn_of_malformed_lines(workspace: Workspace, on_invalid: OnInvalid, table: str) -> None:
    """Warn of the lines that were left out of a table whose rows are no rows of the data, such as one of items."""
    for count in malformed_lines(workspace, on_invalid, table).values():
        [(file,)] = workspace.inspect(f"SELECT min(file) FROM {MALFORMED} WHERE loaded = {literal(table)} AND rows > 0")
        name = table.strip('"')
        workspace.warn(f"{file}: {count} malformed lines were left out of the {name}")


def refuse_lost_lines(
    workspace: Workspace, files: Sequence[Path], columns: Sequence[str], on_invalid: OnInvalid, table: str = "raw"
) -> None:
    """Refuse CSV files with rows that are neither in a table nor among the invalid ones that were left out of it.

    Args:
        workspace: Workspace that holds the table.
        files: The files that were read into it.
        columns: Columns of the files.
        on_invalid: "drop": invalid rows were left out, as `keep_malformed` kept them.
        table: The table.

    Raises:
        DataError: A quote that is not closed joins the rest of a file, or the lines of a file end in several ways.
    """
    found = workspace.rows_by_file(table, FILE)
    if on_invalid == "drop":
        kept = workspace.inspect(f"SELECT file, rows FROM {MALFORMED} WHERE loaded = {literal(table)}")
        found = {file: found.get(file, 0) + rows for file, rows in kept}
    for file, rows in zip(files, workspace.map(partial(count_rows, columns=columns), files), strict=True):
        missing = rows - found.get(str(file), 0)
        if missing == 1:
            raise DataError(f"{file}: {_open_quote(rows - 1)}")
        if missing:
            raise DataError(f"{file}: {missing} lines cannot be read: {explain_lost_lines(file)}")


def _open_quote(rows: int) -> str:
    return (
        f"after data row {rows}, a quote that is not closed joins the lines that follow. Close it, and write a quote"
        ' within a value twice ("")'
    )


def count_rows(file: Path, columns: Sequence[str]) -> int:
    """Count the rows of a CSV file below its header line, including those with a wrong number of fields.

    Arrow counts them because DuckDB 2.0.0 loses what follows an unclosed quote.
    """
    names, delimiter = read_header(file, columns)
    rows = 0

    def skip(_: object) -> str:
        nonlocal rows
        rows += 1
        return "skip"

    fields = [f"c{index}" for index in range(len(names))]
    reading = pc.ReadOptions(column_names=fields, skip_rows=1, block_size=_BLOCK)
    parsing = pc.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip)
    converting = pc.ConvertOptions(check_utf8=False, include_columns=fields[:1], column_types={"c0": pa.binary()})
    try:
        with (
            open_binary(file) as stream,
            pc.open_csv(stream, read_options=reading, parse_options=parsing, convert_options=converting) as batches,
        ):
            for batch in batches:
                rows += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        if is_header_only(file):
            return 0  # Arrow refuses a header line without a line break
        if "straddl" in str(error):  # the row is longer than a block
            raise DataError(f"{file}: {_open_quote(rows)}") from error
        raise DataError(f"{file}: cannot be read: {explain(file, error, droppable=False)}") from error
    return rows
