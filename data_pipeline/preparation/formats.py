"""Recognize the format of a file by its first bytes, and explain why a file cannot be read."""

from __future__ import annotations

import gzip
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from data_pipeline.errors import DataError

# Kinds of files by the endings of their names; any other name is that of a CSV file.
KINDS = {
    "Parquet": (".parquet", ".pq"),
    "Arrow": (".arrow", ".feather", ".ipc"),
    "JSON lines": (".jsonl", ".ndjson", ".json"),
}
_COMPRESSED = (".gz", ".zst", ".zstd")
_EXPECTED = {  # by the ending of the name: the format, and its first bytes
    **dict.fromkeys((".parquet", ".pq"), ("Parquet", b"PAR1")),
    **dict.fromkeys((".arrow", ".feather", ".ipc"), ("Arrow", b"ARROW1")),
    **dict.fromkeys((".zst", ".zstd"), ("zstd", b"(\xb5/\xfd")),
    ".gz": ("gzip", b"\x1f\x8b"),
}
# The first bytes of files of other formats: the format, and what to do.
_UTF16 = "text in UTF-16", "Convert it to UTF-8: iconv -f UTF-16 -t UTF-8"
_SIGNATURES = {
    b"PAR1": ("a Parquet file", "Give it a name that ends in .parquet"),
    b"\x1f\x8b": ("compressed by gzip", "Give it a name that ends in .gz"),
    b"PK\x03\x04": ("a zip archive (or a spreadsheet)", "Unpack it, or save it as CSV"),
    b"(\xb5/\xfd": ("compressed by zstd", "Give it a name that ends in .zst"),
    b"ARROW1": ("an Arrow file", "Give it a name that ends in .arrow"),
    b"BZh": ("compressed by bzip2", "Unpack it"),
    b"\xfd7zXZ": ("compressed by xz", "Unpack it"),
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
}
_CORRUPT = "It is damaged or truncated; write it again"
_DROP = ", or leave such lines out, counted in report.json: data.on_invalid=drop"
_FIELDS = "Expected Number of Columns"
# Patterns of DuckDB's messages, what to do, and whether leaving out lines helps; the first that matches counts.
_HINTS = (
    (r"Out of Memory|failed to allocate", "Give preparation more memory: data.memory_gb", False),
    (r"No space left", "Free space on the disk of the output folder, where rows are sorted", False),
    (r"Permission denied", "Make the file readable", False),
    (r"not utf-8 encoded|Invalid unicode", "Convert the file to UTF-8, for example: iconv -f LATIN1 -t UTF-8", False),
    (r"unterminated quote", 'Close the quote, and write a quote within a value twice ("")', True),
    (
        _FIELDS,
        "Give every line the fields of the header line (a delimiter within a value needs quotes around it)",
        True,
    ),
    (r"Maximum line size|straddles", "A quote that is not closed joins lines: close it", True),
    (r"maximum_object_size", "Write one object per line", False),
    (
        r"Could not convert|Conversion Error|Type .* with value",
        "Its values do not fit its types: write them alike",
        False,
    ),
)
# The start of what DuckDB advises, in its own settings
_ADVICE = r"Possible (?:fixes|Solution)|This can happen when|\s+Try (?:setting|auto-detecting|increasing) "


def kind_of(file: Path) -> str:
    """Return the kind of a file by the ending of its name, without that of its compression: one of `KINDS`."""
    return next((kind for kind, known in KINDS.items() if _ending(file) in known), "CSV")


def is_text(file: Path) -> bool:
    """Return whether the name of a file is that of lines of text: .csv, .tsv or .txt, compressed or not, or none."""
    return _ending(file) in ("", ".csv", ".tsv", ".txt")


def _ending(file: Path) -> str:
    endings = [ending.lower() for ending in file.suffixes[-2:]]
    return "".join(endings[:-1] if endings and endings[-1] in _COMPRESSED else endings[-1:])


def is_parquet(file: Path) -> bool:
    """Return whether a file is a Parquet file, by the ending of its name."""
    return kind_of(file) == "Parquet"


def open_binary(file: Path) -> BinaryIO:
    """Open a file that may be compressed, by the ending of its name: .gz or .zst."""
    if file.suffix.lower() in (".zst", ".zstd"):
        return pa.input_stream(str(file), compression="zstd")
    return cast(BinaryIO, gzip.open(file, "rb")) if file.suffix.lower() == ".gz" else file.open("rb")


def refuse_other_formats(file: Path) -> None:
    """Raise `DataError` for a file whose first bytes show another format than its name."""
    try:
        with file.open("rb") as stream:
            first = stream.read(6)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}. Make the file readable") from error
    name, expected = _EXPECTED.get(file.suffix.lower(), ("", None))
    for signature, (kind, remedy) in _SIGNATURES.items():
        if first.startswith(signature) and signature != expected:
            raise DataError(f"{file}: by its first bytes this is {kind}. {remedy}")
    if expected is not None and not first.startswith(expected):
        raise DataError(
            f"{file}: cannot be read as {name}: its first bytes are {first!r}. {_CORRUPT}, or give it the ending of"
            " its format"
        )


def refuse_json_documents(file: Path) -> None:
    """Raise `DataError` for a file of JSON whose objects are in an array, or go over several lines."""
    try:
        with open_binary(file) as stream:
            first = stream.read(1 << 16).removeprefix(b"\xef\xbb\xbf").lstrip()
    except (OSError, EOFError) as error:
        raise DataError(f"{file}: cannot be read: {error}. {_CORRUPT}") from error
    array = first.startswith(b"[")
    if array or first.split(b"\n")[0].strip() == b"{":
        kind, command = ("a JSON array", "jq -c .[]") if array else ("JSON over several lines", "jq -c .")
        raise DataError(f"{file}: by its first bytes this is {kind}. Write one object per line: {command} {file}")


def require_columns(file: Path, columns: Sequence[str], names: Sequence[str]) -> None:
    """Raise `DataError` for the first of ``columns`` that is not among ``names``, or is among them twice."""
    folded = [name.casefold() for name in names]  # SQL ignores case
    for column in columns:
        if column not in names or folded.count(column.casefold()) > 1:
            problem = "no column" if column not in names else "more than one column"
            raise DataError(f"{file}: {problem} {column!r}. The columns are: {', '.join(names)}")


def explain(file: Path, error: Exception, form: str | None = None, *, droppable: bool = True) -> str:
    """Explain why DuckDB cannot read a file, and what to do.

    Args:
        file: The file.
        error: DuckDB's error.
        form: Of text without a header line: what a line is, as ``user<TAB>item``.
        droppable: Whether to advise leaving out invalid lines.
    """
    reason = re.split(_ADVICE, str(error))[0].strip().rstrip(".")
    parquet = is_parquet(file)
    if not parquet and "invalid state" in reason and (ends := _mixed_line_ends(file)):
        return ends
    drop = _DROP if droppable else ""
    for pattern, remedy, helps in _HINTS:
        if re.search(pattern, reason, re.IGNORECASE):
            if form is not None and pattern == _FIELDS:
                remedy = f"Every line must be of the form {form}"
            return f"{reason}. {remedy}{drop if helps else ''}"
    return f"{reason}. {_CORRUPT if parquet else f'Correct the file{drop}'}"


def explain_lost_lines(file: Path) -> str:
    """Explain why many consecutive lines of a CSV file could not be read."""
    other = "they are not UTF-8, have unclosed quotes, or another number of fields than the header line"
    return _mixed_line_ends(file) or f"{other}. Correct them"


def _mixed_line_ends(file: Path) -> str:
    """Explain what is wrong with a text file with several kinds of line end; empty for a single kind."""
    if len(ends := line_ends(file)) < 2:
        return ""
    counts = " and ".join(f"{count} in {end}" for end, count in ends.items())
    return f"its lines end in several ways: {counts}. Write one line end, for example: dos2unix FILE"


def line_ends(file: Path) -> dict[str, int]:
    """Count the line ends of each kind of a text file, including those within quotes."""
    counts = {"CR LF (Windows)": 0, "LF": 0, "CR": 0}
    with open_binary(file) as stream:
        before = b""
        while part := stream.read(1 << 20):
            both = part.count(b"\r\n") + (before == b"\r" and part.startswith(b"\n"))
            counts["CR LF (Windows)"] += both
            counts["LF"] += part.count(b"\n") - both
            counts["CR"] += part.count(b"\r") - both
            before = part[-1:]
    return {end: count for end, count in counts.items() if count}
