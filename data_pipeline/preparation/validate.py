"""``raw`` -> the view ``valid``: typed columns under their prepared names, without the rows that break a rule."""

from __future__ import annotations

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import ROW, Columns
from data_pipeline.preparation.delimited import OnInvalid
from data_pipeline.preparation.read import Rule, Source
from data_pipeline.preparation.typed import ColumnTypes
from data_pipeline.preparation.workspace import Workspace, quoted


def validate(workspace: Workspace, source: Source, columns: Columns, on_invalid: OnInvalid) -> dict[str, int]:
    """Create ``valid`` and count the rows left out of it, by reason. A row counts under the first rule it breaks.

    Args:
        workspace: Workspace that holds ``raw``.
        source: Source of ``raw``.
        columns: Meaning of the raw columns.
        on_invalid: "error" refuses rows that break a rule, "drop" leaves them out.

    Raises:
        DataError: The type of a column does not fit its meaning; there are no rows; or rows break a rule and
            ``on_invalid`` is "error" (one line per rule, with the first such row).
    """
    typed = ColumnTypes(workspace, source).of_all(columns)
    rules = [*source.rules, *(rule for column in typed for rule in column.rules)]
    cases = " ".join(f"WHEN {rule.broken} THEN {number}" for number, rule in enumerate(rules))
    found = workspace.over_raw(
        f"SELECT rule, count(*) AS n, min(row) AS first FROM (SELECT CASE {cases} END AS rule, rowid AS row FROM raw)"
        " WHERE rule IS NOT NULL GROUP BY rule"
    )
    broken = workspace.query(f"SELECT rule, sum(n)::BIGINT, min(first) FROM {found} GROUP BY rule ORDER BY rule")
    if broken and on_invalid == "error":
        lines = [_describe(workspace, source, rules[number], count, row) for number, count, row in broken]
        raise DataError("\n".join(lines))
    values = ", ".join(f"{column.value} AS {quoted(column.name)}" for column in typed)
    valid = workspace.over_raw(f"SELECT {values}, rowid AS {ROW} FROM raw WHERE CASE {cases} END IS NULL")
    workspace.query(f"CREATE VIEW valid AS SELECT * FROM {valid}")
    dropped = {f"{rules[number].column}: {rules[number].reason}": count for number, count, _ in broken}
    if workspace.count("raw") == sum(dropped.values()):
        reasons = "; ".join(f"{count} dropped: {reason}" for reason, count in {**source.dropped, **dropped}.items())
        raise DataError(
            f"{source.description}: no rows" + (f" are left ({reasons})" if reasons else ". Check data.source")
        )
    return dropped


def _describe(workspace: Workspace, source: Source, rule: Rule, count: int, row: int) -> str:
    value, file, position = source.find(workspace, rule.column, row)
    rows = "row" if count == 1 else "rows"
    return (
        f"{file}: column {rule.column!r}: {rule.reason} in {count} {rows}, first {value!r} in data row"
        f" {position}. {rule.remedy}, or leave such rows out, counted in report.json: data.on_invalid=drop"
    )
