"""Texts that are probably one value with two spellings, as ``1`` and ``1.0``, or none, as ``NULL``."""

from __future__ import annotations

from data_pipeline.errors import DataError
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.workspace import Workspace, literal, quoted

_WRITTEN_NULLS = ("NULL", "null", "\\N", "nan", "NaN", "None", "N/A")  # \\N: of Hive and MySQL


def refuse_double_spelling(workspace: Workspace, source: Source, column: str) -> None:
    """Refuse a text column of ids in which one id has two spellings; warn about ids that differ in leading zeros.

    Raises:
        DataError: Two texts are the same number, or differ only in spaces around them.
    """
    if found := _double_spelling(workspace, source, column, _plain(column)):
        raise DataError(
            f"column {column!r}: {found}: one id with two spellings would become two ids. Write every id in one way"
            " (pandas writes whole numbers as 1.0 where the column has empty values)"
        )
    warn_of_double_spelling(workspace, source, column, f"regexp_replace({_plain(column)}, '^0+([0-9]+)$', '\\1')")


def warn_of_double_spelling(workspace: Workspace, source: Source, column: str, plain: str | None = None) -> None:
    """Warn where two values of a text column differ only in their spelling; they remain two values."""
    if found := _double_spelling(workspace, source, column, plain or _plain(column)):
        workspace.warn(
            f"column {column!r}: {found}: they are kept as two values. If they are one value, write it in one way"
        )


def warn_of_written_nulls(workspace: Workspace, source: Source, column: str) -> None:
    """Warn of texts in a column of ids that programs write for a missing value; they remain ids."""
    nulls = ", ".join(map(literal, _WRITTEN_NULLS))
    texts = workspace.over_raw(
        f"SELECT {quoted(column)} AS __text, count(*) AS n, min(rowid) AS __row FROM raw"
        f" WHERE {quoted(column)} IN ({nulls}) GROUP BY {quoted(column)}"
    )
    found = f"SELECT sum(n)::BIGINT, min(__row) AS first FROM {texts} GROUP BY __text ORDER BY first"
    for rows, row in workspace.query(found):
        workspace.warn(
            f"column {column!r}: {source.show(workspace, column, row)}, of {rows} rows with it: it is kept as an id. If"
            " it stands for a missing id, write an empty field, or null, and set data.on_invalid=drop"
        )


def _plain(column: str) -> str:
    """Return SQL for a text without spaces around it and without a fraction of zeros."""
    return f"regexp_replace(trim({quoted(column)}), '^([+-]?[0-9]+)\\.0*$', '\\1')"


def _double_spelling(workspace: Workspace, source: Source, column: str, plain: str) -> str:
    """Describe the first two texts of ``column`` with the same ``plain`` form; empty where there are none."""
    texts = workspace.over_raw(
        f"SELECT {quoted(column)} AS __text, {plain} AS __plain, min(rowid) AS __row FROM raw"
        f" WHERE {quoted(column)} IS NOT NULL GROUP BY {quoted(column)}"
    )
    found = workspace.query(f"""
        SELECT min(__row) AS first, max(__row)
        FROM (SELECT __plain, min(__row) AS __row FROM {texts} GROUP BY __text, __plain)
        GROUP BY __plain HAVING count(*) > 1 ORDER BY first LIMIT 1""")
    return " and ".join(source.show(workspace, column, row) for row in found[0]) if found else ""
