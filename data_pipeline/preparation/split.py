"""``valid`` -> the table ``rows``: every row with its split, 0 train, 1 validation, 2 test."""

from __future__ import annotations

from typing import Literal

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import GIVEN, ROW, SPLIT, TIME, USER
from data_pipeline.preparation.workspace import Workspace, literal, quoted
from data_pipeline.schema import SPLITS

SplitBy = Literal["given", "user_time", "time", "random"]


def split_rows(workspace: Workspace, by: SplitBy, ratios: tuple[int, int, int]) -> dict[str, int]:
    """Create ``rows`` and count the rows of each split.

    With ratios a:b:c, the row at position p of n (from 0) is of train when ``p < max(1, floor(n a / (a+b+c)))``, else
    of validation when ``p < max(1, floor(n (a+b) / (a+b+c)))``, else of test: every row is in exactly one split, and
    the first row is always of train. At 8:1:1, a user with 1 row has it in train; with 2 to 5, the last is of test and
    none of validation. The position is

    - ``user_time``: the row's place among the n rows of its user, in order of time, then of the raw files;
    - ``time``: how many of all n rows are strictly earlier, so that rows of the same time stay together;
    - ``random``: a seeded hash of the row's place in the raw files, modulo n = a+b+c.

    ``given`` takes the split that the data set gives, and no ratios.

    Raises:
        DataError: a split is empty.
    """
    if by == "given":
        workspace.query(f"CREATE TABLE rows AS SELECT *, {GIVEN} AS {SPLIT} FROM valid")
    else:
        _split_by_ratios(workspace, by, ratios)
    counts = dict(workspace.query(f"SELECT {SPLIT}, count(*) FROM rows GROUP BY {SPLIT}"))
    rows = {name: counts.get(number, 0) for number, name in enumerate(SPLITS)}
    for name, count in rows.items():
        if count == 0:
            raise DataError(
                f"the {name} split is empty: {sum(rows.values())} rows, data.split={by}, data.ratios={list(ratios)}."
                " Give more rows, other ratios, or another data.split (user_time, time, random)"
            )
    return rows


def _split_by_ratios(workspace: Workspace, by: SplitBy, ratios: tuple[int, int, int]) -> None:
    position, count = {
        "user_time": (
            f"row_number() OVER (PARTITION BY {USER} ORDER BY {TIME}, {ROW}) - 1",
            f"count(*) OVER (PARTITION BY {USER})",
        ),
        "time": (f"rank() OVER (ORDER BY {TIME}) - 1", "count(*) OVER ()"),
        "random": (f"{seeded_hash(workspace.seed, 'split')} % {sum(ratios)}", f"{sum(ratios)}"),
    }[by]
    train, validation = ratios[0], ratios[0] + ratios[1]
    workspace.query(f"""
        CREATE TABLE rows AS
        SELECT * EXCLUDE (__position, __count), CASE
            WHEN __position < greatest(1, __count * {train} // {sum(ratios)}) THEN 0
            WHEN __position < greatest(1, __count * {validation} // {sum(ratios)}) THEN 1
            ELSE 2 END::TINYINT AS {SPLIT}
        FROM (SELECT *, {position} AS __position, {count} AS __count FROM valid)""")


def seeded_hash(seed: int, purpose: str, column: str = ROW) -> str:
    """SQL for a pseudo-random uint64 of a row, or of the value of `column`.

    It is the same on every machine, with any number of threads and any DuckDB.
    """
    return f"md5_number_lower({literal(f'{seed}:{purpose}:')} || {quoted(column)})"
