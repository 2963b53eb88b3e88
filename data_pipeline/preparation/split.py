"""``valid`` -> the table ``rows``: every row with its split, 0 train, 1 validation, 2 test."""

from __future__ import annotations

from typing import Literal

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import GIVEN, ROW, SPLIT, TIME, USER
from data_pipeline.preparation.workspace import Workspace, literal, quoted
from data_pipeline.schema import SPLITS

SplitBy = Literal["given", "user_time", "time", "random", "leave_one_out"]


def split_rows(workspace: Workspace, by: SplitBy, ratios: tuple[int, int, int], timed: bool) -> dict[str, int]:
    """Create ``rows`` and count the rows of each split.

    With ratios a:b:c, the row at position p of n (from 0) is of train when ``p < max(1, floor(n a / (a+b+c)))``, else
    of validation when ``p < max(1, floor(n (a+b) / (a+b+c)))``, else of test: every row is in exactly one split, and
    the first row is always of train. At 8:1:1, a user with 1 row has it in train; with 2 to 5, the last is of test and
    none of validation. The position is

    - ``user_time``: the row's place among the n rows of its user, in order of time, then of the raw files;
    - ``time``: how many of all n rows are strictly earlier, so that rows of the same time stay together;
    - ``random``: a seeded hash of the row's place in the raw files, modulo n = a+b+c.

    Two take no ratios:

    - ``given``: the split that the data set gives. Where it gives none for validation, that is one training row, drawn
      by a seeded hash, of every user who has at least two.
    - ``leave_one_out``: a user's last row is of test, the one before of validation, the others of train; of two rows
      the last is of test, and a single one of train. Last in order of time, if `timed`, else by a seeded hash.

    Raises:
        DataError: a split is empty.
    """
    if by == "given":
        workspace.query(f"CREATE TABLE rows AS SELECT *, {GIVEN} AS {SPLIT} FROM valid")
        if not workspace.query(f"SELECT 1 FROM rows WHERE {SPLIT} = 1 LIMIT 1"):
            _hold_out_validation(workspace)
    elif by == "leave_one_out":
        _leave_one_out(workspace, timed)
    else:
        _split_by_ratios(workspace, by, ratios)
    counts = dict(workspace.query(f"SELECT {SPLIT}, count(*) FROM rows GROUP BY {SPLIT}"))
    rows = {name: counts.get(number, 0) for number, name in enumerate(SPLITS)}
    for name, count in rows.items():
        if count == 0:
            raise DataError(
                f"the {name} split is empty: {sum(rows.values())} rows, data.split={by}, data.ratios={list(ratios)}."
                " Give more rows, other ratios, or another data.split (user_time, time, random, leave_one_out)"
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


def _hold_out_validation(workspace: Workspace) -> None:
    order = seeded_hash(workspace.seed, "validation")
    workspace.query(f"""
        UPDATE rows SET {SPLIT} = 1 WHERE {ROW} IN (
            SELECT arg_min({ROW}, {order}) FROM rows WHERE {SPLIT} = 0 GROUP BY {USER} HAVING count(*) > 1
        )""")


def _leave_one_out(workspace: Workspace, timed: bool) -> None:
    order = f"{TIME} DESC, {ROW} DESC" if timed else f"{seeded_hash(workspace.seed, 'split')}, {ROW}"
    workspace.query(f"""
        CREATE TABLE rows AS
        SELECT * EXCLUDE (__after, __count), CASE
            WHEN __after = 0 AND __count > 1 THEN 2
            WHEN __after = 1 AND __count > 2 THEN 1
            ELSE 0 END::TINYINT AS {SPLIT}
        FROM (
            SELECT *, row_number() OVER (PARTITION BY {USER} ORDER BY {order}) - 1 AS __after,
                count(*) OVER (PARTITION BY {USER}) AS __count
            FROM valid
        )""")


def seeded_hash(seed: int, purpose: str, column: str = ROW) -> str:
    """SQL for a pseudo-random uint64 of a row, or of the value of `column`.

    It is the same on every machine, with any number of threads and any DuckDB.
    """
    return f"md5_number_lower({literal(f'{seed}:{purpose}:')} || {quoted(column)})"
