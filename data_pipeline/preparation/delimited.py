"""SELECTs over delimited text: CSV with a header line, and the files of public data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from data_pipeline.preparation.csv_header import read_header
from data_pipeline.preparation.workspace import literal, quoted, scan_path

OnInvalid = Literal["error", "drop"]


def csv_scan(file: Path, columns: Sequence[str], on_invalid: OnInvalid) -> str:
    """Return a SELECT of ``columns``, as text, over a CSV file with a header line."""
    names, delimiter = read_header(file, columns)
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
    """Return a SELECT over delimited text. DuckDB detects nothing from the first rows.

    The scan is not parallel: a parallel one begins within quotes, and loses invalid lines. A scan with quotes loses
    what follows an unclosed quote without an error, so that `refuse_lost_lines` must check it.

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
        f" parallel = false, delim = {literal(delimiter)}, quote = {literal(quote)}, escape = {literal(quote)},"
        f" encoding = {literal(encoding)}, columns = {{{types}}}{rejects})"
    )


def line_form(fields: Sequence[str], delimiter: str) -> str:
    """Return the form of a line for errors, as ``user<TAB>item``."""
    return {"\t": "<TAB>", " ": "<SPACE>"}.get(delimiter, delimiter).join(fields)
