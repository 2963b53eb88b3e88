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
        on_invalid: "drop" records invalid lines in a table of DuckDB instead of failing.
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


def malformed_lines(workspace: Workspace) -> dict[str, int]:
    """Count the CSV lines that were left out, as DuckDB recorded them."""
    if not workspace.query("SELECT 1 FROM duckdb_tables() WHERE table_name = 'reject_errors'"):
        return {}
    [(count,)] = workspace.query("SELECT count(DISTINCT (scan_id, file_id, line)) FROM reject_errors")
    return {"malformed CSV line": count} if count else {}
