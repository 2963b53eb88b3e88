"""Refuse columns of times without a common order: a mix of units, or of times with and without UTC offset."""

from __future__ import annotations

from data_pipeline.errors import DataError
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.times import UNITS, nanoseconds_of, offset_of, unit_of
from data_pipeline.preparation.workspace import Workspace, quoted


def refuse_mixed_offsets(workspace: Workspace, source: Source, column: str) -> None:
    """Raise `DataError`, with a row of each kind, where some texts of a column have a UTC offset and some have none."""
    raw = quoted(column)
    first = workspace.over_raw(
        f"SELECT {offset_of(raw)} = '' AS bare, min(rowid) AS row FROM raw WHERE {nanoseconds_of(raw)} IS NOT NULL"
        " GROUP BY bare"
    )
    rows = workspace.query(f"SELECT min(row) FROM {first} GROUP BY bare ORDER BY bare")
    if len(rows) > 1:
        with_offset, without = (source.show(workspace, column, row) for [row] in rows)
        raise DataError(
            f"column {column!r}: {with_offset} has a UTC offset, {without} has none, so their order is unknown."
            " Write all times with an offset (Z for UTC), or none"
        )


def refuse_mixed_units(workspace: Workspace, source: Source, column: str, value: str) -> None:
    """Refuse numbers that are times from 1990 to 2100 in two units.

    Numbers between these ranges show that the column counts something else, if there are as many of them as of one of
    the units; fewer are outliers, such as 9999999999 for "never".

    Args:
        workspace: Workspace that holds ``raw``.
        source: Source of the rows.
        column: Column of times.
        value: SQL of the number.

    Raises:
        DataError: Seconds, milliseconds, microseconds or nanoseconds are mixed; the message has a row of each.
    """
    counts = workspace.over_raw(
        f"SELECT {unit_of(value)} AS unit, count(*) AS n, min(rowid) AS row FROM raw GROUP BY unit"
    )
    found = {
        unit: (count, row)
        for unit, count, row in workspace.query(f"SELECT unit, sum(n)::BIGINT, min(row) FROM {counts} GROUP BY unit")
    }
    units = [unit for unit in UNITS if unit in found]
    between = found["?"][0] if "?" in found else 0
    if len(units) < 2 or between >= min(found[unit][0] for unit in units):
        return
    shown = ", ".join(
        f"{unit} in {found[unit][0]} rows ({source.show(workspace, column, found[unit][1])})" for unit in units
    )
    raise DataError(
        f"column {column!r}: times in several units: {shown}. Write one unit; or set data.time_unit=mixed to read"
        f" every number in the unit of its size; or set data.time_unit={units[0]} data.on_invalid=drop to leave the"
        " rows of other units out; or, if the numbers are not times since 1970, set data.time_unit=counter"
    )
