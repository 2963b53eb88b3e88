"""SELECTs over delimited text: CSV with a header line, and the files of public data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.csv as pc

from data_pipeline.errors import DataError
from data_pipeline.preparation.csv_header import read_header
from data_pipeline.preparation.formats import explain, open_binary
from data_pipeline.preparation.workspace import Workspace, literal, quoted, scan_path

OnInvalid = Literal["error", "drop"]
_MALFORMED = quoted("malformed lines")
_BLOCK = 1 << 24  # bytes that Arrow parses at a time; DuckDB refuses longer lines


def csv_scan(file: Path, columns: Sequence[str], on_invalid: OnInvalid) -> str:
    """Return a SELECT of ``columns``, as text, over a CSV file with a header line."""
    names, delimiter = read_header(file, columns)
    return delimited_scan(file, names, delimiter, columns, quote='"', header=True, on_invalid=on_invalid)


def count_lines(file: Path, columns: Sequence[str]) -> int:
    """Count the rows of a CSV file below its header line, including those with a wrong number of fields.

    Arrow counts them because DuckDB 2.0.0 silently drops a part of a large file in which no line is valid.
    """
    names, delimiter = read_header(file, columns)
    malformed = 0

    def skip(_: object) -> str:
        nonlocal malformed
        malformed += 1
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
            return sum(batch.num_rows for batch in batches) + malformed
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read: {explain(file, error)}") from error


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
    """Return a SELECT over delimited text. DuckDB detects nothing from the first rows.

    A scan without quotes is not parallel, so that it loses no invalid line. A scan with quotes would then lose what
    follows an unclosed quote, so it is parallel and its rows must be compared with `count_lines`.

    Args:
        file: File of text.
        names: Names of all fields of a line.
        delimiter: Delimiter of fields.
        columns: The fields to select.
        quote: Around fields; empty for none.
        header: Whether the first line has the names of the fields.
        encoding: Encoding of the text.
        on_invalid: "drop" leaves invalid lines out instead of failing; `keep_malformed` counts them.
    """
    types = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(names)))
    chosen = ", ".join(f"c{names.index(column)} AS {quoted(column)}" for column in columns)
    rejects = ", store_rejects = true" if on_invalid == "drop" else ""
    return (
        f"SELECT {chosen} FROM read_csv({scan_path(file)}, auto_detect = false, header = {header},"
        f" parallel = {bool(quote)}, delim = {literal(delimiter)}, quote = {literal(quote)}, escape = {literal(quote)},"
        f" encoding = {literal(encoding)}, columns = {{{types}}}{rejects})"
    )


def line_form(fields: Sequence[str], delimiter: str) -> str:
    """Return the form of a line for errors, as ``user<TAB>item``."""
    return {"\t": "<TAB>", " ": "<SPACE>"}.get(delimiter, delimiter).join(fields)


def keep_malformed(table: str, file: Path) -> str:
    """Return the SQL that keeps how many lines of a file were left out when it was read into a table.

    DuckDB records them in tables of the connection, which are gone when a preparation is resumed.
    """
    name = literal(str(file))
    return (
        f"CREATE TABLE IF NOT EXISTS {_MALFORMED} (loaded VARCHAR, file VARCHAR, lines BIGINT);"
        f" INSERT INTO {_MALFORMED} SELECT {literal(table)}, {name}, count(DISTINCT (scan_id, file_id, line))"
        f" FROM reject_errors WHERE scan_id = (SELECT max(scan_id) FROM reject_scans WHERE file_path = {name})"
    )


def malformed_lines(workspace: Workspace, on_invalid: OnInvalid, table: str = "raw") -> dict[str, int]:
    """Count the lines that were left out of a table, as `keep_malformed` kept them."""
    if on_invalid == "error":
        return {}
    [(count,)] = workspace.query(f"SELECT sum(lines)::BIGINT FROM {_MALFORMED} WHERE loaded = {literal(table)}")
    return {"malformed CSV line": count} if count else {}


def warn_of_malformed_lines(workspace: Workspace, on_invalid: OnInvalid, table: str) -> None:
    """Warn of the lines that were left out of a table whose rows are no rows of the data, such as one of items."""
    for count in malformed_lines(workspace, on_invalid, table).values():
        [(file, *_)] = workspace.query(
            f"SELECT min(file) FROM {_MALFORMED} WHERE loaded = {literal(table)} AND lines > 0"
        )
        name = table.strip('"')
        workspace.warn(f"{file}: {count} malformed lines were left out of the {name}")
