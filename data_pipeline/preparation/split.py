"""``valid`` -> the table ``rows``: every row with its split (0 train, 1 validation, 2 test)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import GIVEN, MOMENT, ROW, SPLIT, TIME, USER, Columns
from data_pipeline.preparation.workspace import Workspace, literal, quoted
from data_pipeline.schema import REQUEST, SPLITS

SplitBy = Literal["given", "user_time", "time", "random", "leave_one_out"]
Validation = Literal["none", "leave_one_out", "ratio"]


@dataclass(frozen=True)
class SplitRule:
    """How rows are split.

    A user's *moment* is a set of rows that no split by time divides: the rows of the same user and time or, where the
    data have requests, the rows of the requests that begin at the same time.

    With ratios a:b:c, position p of n (from 0) is in train when ``p < max(1, floor(n a / (a+b+c)))``, else in
    validation when ``p < max(1, floor(n (a+b) / (a+b+c)))``, else in test; position 0 is always in train. At 8:1:1, the
    only moment of a user is in train; of 2 to 5 moments the last is in test and none in validation. The positions are
    those of

    - ``user_time``: the moment, among the n moments of its user;
    - ``time``: the number of rows whose moment is strictly earlier, among all n rows;
    - ``random``: a seeded hash of the row, or of its request, modulo n = a+b+c.

    Two rules do not use ratios:

    - ``leave_one_out``: a user's last moment is in test, the one before in validation, the others in train; of two
      moments the last is in test, and the only moment of a user is in train. For implicit feedback without requests one
      row each is left out: a seeded hash decides between rows of the same time. Without time the hash decides between
      all rows, or requests;
    - ``given``: the split of the data set. `validation` says what to do where it has no validation rows: ``none`` takes
      none; ``leave_one_out`` takes a user's last training moment (row), if the user has two; ``ratio`` takes b / (a+b)
      of the training rows, as ``user_time`` does, or as ``random`` without time.

    Attributes:
        by: One of the above.
        ratios: Ratios a, b and c of training, validation and test.
        timed: Whether rows have times.
        requests: Whether rows have requests.
        implicit: Whether all rows are positives.
        validation: Source of validation rows for a given split without them.
    """

    by: SplitBy
    ratios: tuple[int, int, int]
    timed: bool
    requests: bool
    implicit: bool
    validation: Validation = "none"

    @classmethod
    def of(
        cls,
        columns: Columns,
        by: SplitBy,
        ratios: tuple[int, int, int],
        implicit: bool,
        validation: Validation,
    ) -> SplitRule:
        """Take `timed` and `requests` from the columns."""
        return cls(by, ratios, columns.time is not None, columns.request is not None, implicit, validation)


def split_rows(workspace: Workspace, rule: SplitRule) -> str:
    """Create the table ``rows``.

    Returns:
        Where the validation rows come from: "given", "split", or `SplitRule.validation`.

    Raises:
        DataError: ``rule.validation`` is for a given split without validation rows, but this split has some.
    """
    moment = f"min({TIME}) OVER (PARTITION BY {REQUEST})" if rule.requests else TIME
    timed = f", {moment} AS {MOMENT}" if rule.timed else ""
    workspace.query(f"CREATE VIEW moments AS SELECT *{timed} FROM valid")
    if rule.by != "given":
        _assign(
            workspace, _position(workspace, rule, rule.by, sum(rule.ratios)), shares(rule.by, rule.ratios), "moments"
        )
        return "split"
    workspace.query(f"CREATE TABLE rows AS SELECT *, {GIVEN} AS {SPLIT} FROM moments")
    [(found,)] = workspace.query(f"SELECT count(*) FROM rows WHERE {SPLIT} = 1")
    if found and rule.validation != "none":
        raise DataError(
            f"data.validation = {rule.validation}: the given split has {found} validation rows."
            " Set data.validation=none, or another data.split"
        )
    if not found and rule.validation != "none":
        _take_validation(workspace, rule)
    return "given" if found else rule.validation


def _take_validation(workspace: Workspace, rule: SplitRule) -> None:
    """Move training rows of ``rows`` to validation."""
    train, validation, _ = rule.ratios
    by: SplitBy
    if rule.validation == "leave_one_out":
        by, cases = "leave_one_out", "WHEN __position = 0 AND __count > 1 THEN 1"
    else:
        by = "user_time" if rule.timed else "random"
        cases = f"WHEN __position >= greatest(1, __count * {train} // {train + validation}) THEN 1"
    position = _position(workspace, rule, by, train + validation, purpose="validation")
    workspace.query("ALTER TABLE rows RENAME TO given")
    workspace.query(f"CREATE VIEW training AS SELECT * EXCLUDE ({SPLIT}) FROM given WHERE {SPLIT} = 0")
    _assign(workspace, position, cases, "training")
    workspace.query(f"INSERT INTO rows SELECT * FROM given WHERE {SPLIT} <> 0")
    workspace.query("DROP VIEW training")
    workspace.query("DROP TABLE given")


def _assign(workspace: Workspace, position: tuple[str, str], cases: str, source: str) -> None:
    """Create ``rows`` from `source`: `position` is SQL of ``__position`` and ``__count``, `cases` the split by them."""
    place, count = position
    workspace.query(f"""
        CREATE TABLE rows AS
        SELECT * EXCLUDE (__position, __count), CASE {cases} ELSE 0 END::TINYINT AS {SPLIT}
        FROM (SELECT *, {count} AS __count FROM (SELECT *, {place} AS __position FROM {source}))""")


def shares(by: SplitBy, ratios: tuple[int, int, int]) -> str:
    """Return SQL cases of validation and test by ``__position`` and ``__count``; every other row is in train."""
    if by == "leave_one_out":
        return "WHEN __position = 0 AND __count > 1 THEN 2 WHEN __position = 1 AND __count > 2 THEN 1"
    total, train, validation = sum(ratios), ratios[0], ratios[0] + ratios[1]
    return (
        f"WHEN __position >= greatest(1, __count * {validation} // {total}) THEN 2"
        f" WHEN __position >= greatest(1, __count * {train} // {total}) THEN 1"
    )


def _position(
    workspace: Workspace, rule: SplitRule, by: SplitBy, total: int, purpose: str = "split"
) -> tuple[str, str]:
    """Return SQL for the position of a row, and for the number of positions; of leave-one-out the last is at 0."""
    drawn = seeded_hash(workspace.seed, purpose, REQUEST if rule.requests else ROW)
    if by == "time":
        return f"rank() OVER (ORDER BY {MOMENT}) - 1", "count(*) OVER ()"
    if by == "random":
        return f"{drawn} % {total}", f"{total}"
    if by == "user_time":
        order = MOMENT
    elif rule.timed and (rule.requests or not rule.implicit):
        order = f"{MOMENT} DESC"
    elif rule.requests:
        order = f"{drawn}, {REQUEST}"
    else:
        order = newest_first(workspace.seed, purpose, rule.timed)
    return f"dense_rank() OVER (PARTITION BY {USER} ORDER BY {order}) - 1", (
        f"max(__position) OVER (PARTITION BY {USER}) + 1"
    )


def newest_first(seed: int, purpose: str = "split", timed: bool = True) -> str:
    """Return SQL that orders the rows of a user, newest first; a seeded hash decides between rows of the same time."""
    return f"{f'{TIME} DESC, ' if timed else ''}{seeded_hash(seed, purpose)}, {ROW}"


def count_splits(workspace: Workspace, rule: SplitRule) -> dict[str, int]:
    """Count the rows of every split.

    Raises:
        DataError: A split is empty. Validation may be empty where the data set has its own split without it.
    """
    counts = dict(workspace.query(f"SELECT {SPLIT}, count(*) FROM rows GROUP BY {SPLIT}"))
    rows = {name: counts[number] for number, name in enumerate(SPLITS) if number in counts}
    for name in SPLITS:
        if name in rows or (name == "validation" and rule.by == "given" and rule.validation == "none"):
            continue
        raise DataError(
            f"the {name} split is empty: {sum(rows.values())} rows, data.split={rule.by},"
            f" data.ratios={list(rule.ratios)}{_reason(workspace, rule)}. Give more rows, other ratios, or another"
            " data.split (user_time, time, random, leave_one_out)"
        )
    return rows


def _reason(workspace: Workspace, rule: SplitRule) -> str:
    if not rule.timed or rule.by not in ("user_time", "time", "leave_one_out"):
        return ""
    [(users, single)] = workspace.query(
        f"SELECT count(*), count(*) FILTER (WHERE n = 1)"
        f" FROM (SELECT count(DISTINCT {MOMENT}) AS n FROM rows GROUP BY {USER})"
    )
    return (
        f"; rows of the same user and time stay together, and {single} of {users} users have a single time"
        if single
        else ""
    )


def seeded_hash(seed: int, purpose: str, column: str = ROW) -> str:
    """Return SQL for a pseudo-random uint64 of the value of ``column``, by default of the row.

    It is the same on every machine, with any number of threads and any version of DuckDB.
    """
    return f"md5_number_lower({literal(f'{seed}:{purpose}:')} || {quoted(column)})"
