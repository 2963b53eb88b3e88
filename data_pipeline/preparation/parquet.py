"""Parquet and Arrow files -> one type per column that represents the values of every file without loss, or an error.

A column may be in the names of folders instead (`data_pipeline.preparation.partitions`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.preparation.formats import is_parquet, kind_of, refuse_other_formats, require_columns
from data_pipeline.preparation.partitions import partitions
from data_pipeline.preparation.workspace import Workspace, literal, quoted, scan_path

_SIGNED, _UNSIGNED = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"), ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
_WHOLE = (*_SIGNED, *_UNSIGNED, "HUGEINT", "UHUGEINT")
_DIGITS = dict(zip(_WHOLE, (3, 5, 10, 19, 3, 5, 10, 20, 39, 39), strict=True))  # of the largest number
_REAL = ("FLOAT", "DOUBLE")
_EXACT = {"FLOAT": 2**24, "DOUBLE": 2**53}  # up to it every whole number is represented exactly
_LOCAL, _ZONED = (
    ("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"),
    ("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ_NS"),
)
_NULL = '"NULL"'  # of a column without any value, or in lists without any entry

Types = dict[str, str]  # column -> type


def parquet_scans(
    workspace: Workspace, files: Sequence[Path], columns: Sequence[str]
) -> tuple[list[tuple[Path, str]], dict[str, list[Path]]]:
    """Return a SELECT of ``columns`` for every file, all with the same types; and the files of float32, by column.

    A float32 number that is read as float64 is the one of its shortest decimal text, as in a text file: 4.1, not
    4.099999904632568.

    Raises:
        DataError: A file cannot be read, or lacks a column; or a column has types in two files that no type represents
            without loss.
    """
    found = {file: _types(workspace, file, columns) for file in files}
    common = {column: _common_type(workspace, found, column) for column in columns}
    scans = []
    for file, types in found.items():
        casts = ", ".join(
            f"{_cast(column, types[column], kind)} AS {quoted(column)}" for column, kind in common.items()
        )
        scans.append((file, f"SELECT {casts} FROM {_relation(workspace, file, columns)}"))
    return scans, {column: [file for file in files if found[file][column] == "FLOAT"] for column in columns}


def _cast(column: str, kind: str, common: str) -> str:
    """Return the SQL of a column of one type in the type that all files have."""
    text = "::VARCHAR" if (kind, common) == ("FLOAT", "DOUBLE") else ""
    return f"{quoted(column)}{text}::{common}"


def _relation(workspace: Workspace, file: Path, columns: Sequence[str]) -> str:
    """Return the SQL of a file's rows, with the columns that are in the names of its folders."""
    if is_parquet(file):
        rows = f"read_parquet({scan_path(file)}, hive_partitioning = false)"
    else:
        rows = f"{file}"
        workspace.register(rows, ds.dataset(file, format="ipc"))
        rows = quoted(rows)
    names = _names(file)
    found = {name: value for name, value in partitions(file).items() if name in columns and name not in names}
    if not found:
        return rows
    values = (f"{'NULL' if value is None else literal(value)} AS {quoted(name)}" for name, value in found.items())
    return f"(SELECT *, {', '.join(values)} FROM {rows})"


def _names(file: Path) -> list[str]:
    return (pq.read_schema(file) if is_parquet(file) else ds.dataset(file, format="ipc").schema).names


def _types(workspace: Workspace, file: Path, columns: Sequence[str]) -> Types:
    refuse_other_formats(file)
    try:
        names = _names(file)
    except (pa.ArrowException, OSError) as error:
        kind = kind_of(file)
        raise DataError(f"{file}: cannot be read as {kind}: {error} It may be truncated; write it again") from error
    require_columns(file, columns, [*names, *(name for name in partitions(file) if name not in names)])
    described = workspace.inspect(
        f"DESCRIBE SELECT {', '.join(map(quoted, columns))} FROM {_relation(workspace, file, columns)}"
    )
    return {name: "VARCHAR" if kind.startswith("ENUM") else kind for name, kind, *_ in described}


def _common_type(workspace: Workspace, found: dict[Path, Types], column: str) -> str:
    """Return the narrowest type that represents the values of all files."""
    first = next(iter(found))
    common, source = found[first][column], first
    for file, types in found.items():
        kind = types[column]
        wider = _wider(common, kind)
        if wider is None:
            raise DataError(
                f"{source}: column {column!r} has the type {common}, but in {file} it has the type {kind};"
                " no type represents both without loss. Write all files with one type"
            )
        if wider != common and common != _NULL:
            workspace.on_progress(f"column {column!r}: {common} in {source}, {kind} in {file}; reading it as {wider}")
        if wider != common:
            source = file if wider == kind else source
        common = wider
    if common in _REAL:
        _require_exact(workspace, found, column, common)
    return common.replace(_NULL, "VARCHAR")


def _wider(one: str, other: str) -> str | None:
    """Return a type that represents the values of both, or None."""
    if one == other or other == _NULL:
        return one
    if one == _NULL:
        return other
    if one.endswith("[]") and other.endswith("[]"):
        entries = _wider(one[:-2], other[:-2])
        return None if entries is None or entries in _REAL else f"{entries}[]"
    pair = {one, other}
    if pair <= set(_WHOLE):
        return _wider_whole(one, other)
    if "BOOLEAN" in pair:
        [number] = pair - {"BOOLEAN"}
        return number if number in (*_WHOLE, *_REAL) else None
    if pair <= {*_WHOLE, *_REAL}:
        return "DOUBLE"
    if pair <= set(_LOCAL):
        return "TIMESTAMP_NS" if "TIMESTAMP_NS" in pair else "TIMESTAMP"
    if pair == set(_ZONED):
        return "TIMESTAMPTZ_NS"
    return _wider_decimal(one, other)


def _wider_whole(one: str, other: str) -> str | None:
    for kinds in (_SIGNED, _UNSIGNED):
        if one in kinds and other in kinds:
            return max(one, other, key=kinds.index)
    return "HUGEINT" if "UHUGEINT" not in (one, other) else None


def _wider_decimal(one: str, other: str) -> str | None:
    sizes = [size for kind in (one, other) if (size := _decimal(kind)) is not None]
    if "DOUBLE" in (one, other):
        digits = max((sum(size) for size in sizes), default=99)
        return "DOUBLE" if digits <= 15 else None  # a DOUBLE represents so many decimal digits exactly
    if len(sizes) < 2:
        return None
    before, after = (max(size[part] for size in sizes) for part in (0, 1))
    return f"DECIMAL({before + after},{after})" if before + after <= 38 else None


def _decimal(kind: str) -> tuple[int, int] | None:
    """Return the digits before and after the point, or None for a type without a fixed number of digits."""
    if kind in _DIGITS:
        return _DIGITS[kind], 0
    found = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind)
    return (int(found[1]) - int(found[2]), int(found[2])) if found else None


def _require_exact(workspace: Workspace, found: dict[Path, Types], column: str, common: str) -> None:
    """Refuse whole numbers that a floating-point type would round."""
    floating = next(file for file, types in found.items() if types[column] in _REAL)
    for file, types in found.items():
        if types[column] not in _WHOLE:
            continue
        rounded = workspace.inspect(
            f"SELECT {quoted(column)} FROM {_relation(workspace, file, [column])}"
            f" WHERE abs({quoted(column)}::HUGEINT) > {_EXACT[common]} LIMIT 1"
        )
        if rounded:
            raise DataError(
                f"{file}: column {column!r} has the type {types[column]} and the value {rounded[0][0]}, which the type"
                f" {found[floating][column]} of {floating} cannot represent exactly. Write all files with one type"
            )
