"""The header line of CSV files, which names their columns and shows their delimiter."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.preparation.formats import open_binary, refuse_other_formats, require_columns

_DELIMITERS = ",\t;|"


def read_header(file: Path, columns: Sequence[str]) -> tuple[list[str], str]:
    """Read the names of all columns of a CSV file, and its delimiter.

    Raises:
        DataError: The file is not text in UTF-8, or lacks one of ``columns``.
    """
    refuse_other_formats(file)
    try:
        with open_binary(file) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as stream:
            header = stream.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError, EOFError) as error:
        raise DataError(
            f"{file}: cannot be read as text: {error}. CSV must be UTF-8, plain, .gz or .zst; convert it, for example:"
            " iconv -f LATIN1 -t UTF-8"
        ) from error
    names, delimiter = max(
        ((next(csv.reader([header], delimiter=d), []), d) for d in _DELIMITERS), key=lambda c: len(c[0])
    )
    if len(names) == 1 < len(columns):
        raise DataError(
            f"{file}: the header line is one field, {header!r}, but {len(columns)} columns are named:"
            f" {', '.join(columns)}. Fields must be separated by comma, tab, semicolon or bar"
        )
    require_columns(file, columns, names)
    return names, delimiter


def is_header_only(file: Path) -> bool:
    """Return whether nothing follows the header line of a CSV file."""
    with (
        open_binary(file) as binary,
        io.TextIOWrapper(binary, encoding="utf-8", errors="replace", newline="") as stream,
    ):
        stream.readline()
        return not stream.read(1)
