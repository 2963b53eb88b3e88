"""``raw`` -> the view ``valid``: typed columns under their prepared names, without the rows that break a rule."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE, GIVEN, ITEM, LABEL, ROW, TIME, USER, Columns
from data_pipeline.preparation.read import OnInvalid, Rule, Source
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.schema import SPLITS

_INT64 = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_NUMBERS = (*_INT64, "UBIGINT", "HUGEINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
_MOMENTS = ("DATE", "TIMESTAMP")
_TEXT = ("VARCHAR",)
_NESTED = ("STRUCT", "MAP", "UNION", "LIST", "ARRAY")


@dataclass(frozen=True)
class Typed:
    """A prepared column: `value` is SQL over ``raw``, meant for rows that break none of `rules`."""

    name: str
    value: str
    rules: tuple[Rule, ...] = ()


def validate(workspace: Workspace, source: Source, columns: Columns, on_invalid: OnInvalid) -> dict[str, int]:
    """Create ``valid`` and count the rows left out of it, by reason. A row counts under the first rule it breaks.

    Raises:
        DataError: a column's type does not fit its meaning; there are no rows; or rows break a rule and `on_invalid` is
            "error": one line per rule, with the first such row.
    """
    typed = _Typing(workspace, source).columns(columns)
    rules = [*source.rules, *(rule for column in typed for rule in column.rules)]
    cases = " ".join(f"WHEN {rule.broken} THEN {number}" for number, rule in enumerate(rules))
    broken = workspace.query(
        f"SELECT rule, count(*), min(row) FROM (SELECT CASE {cases} END AS rule, rowid AS row FROM raw)"
        " WHERE rule IS NOT NULL GROUP BY rule ORDER BY rule"
    )
    if broken and on_invalid == "error":
        lines = [_describe(workspace, source, rules[number], count, row) for number, count, row in broken]
        raise DataError("\n".join(lines))
    values = ", ".join(f"{column.value} AS {quoted(column.name)}" for column in typed)
    workspace.query(f"CREATE VIEW valid AS SELECT {values}, rowid AS {ROW} FROM raw WHERE CASE {cases} END IS NULL")
    dropped = {f"{rules[number].column}: {rules[number].reason}": count for number, count, _ in broken}
    [(read,)] = workspace.query("SELECT count(*) FROM raw")
    if read == sum(dropped.values()):
        reasons = "; ".join(f"{count} dropped, {reason}" for reason, count in {**source.dropped, **dropped}.items())
        raise DataError(
            f"{source.description}: no rows" + (f" are left ({reasons})" if reasons else ". Check data.source")
        )
    return dropped


def _describe(workspace: Workspace, source: Source, rule: Rule, count: int, row: int) -> str:
    [(value, file, place)] = workspace.query(
        f"SELECT {quoted(rule.column)}::VARCHAR, {FILE}, {source.place} FROM raw WHERE rowid = {row}"
    )
    rows = "row" if count == 1 else "rows"
    return (
        f"{file}: column {rule.column!r}: {rule.reason} in {count} {rows}, first {value!r} in data row"
        f" {place}. Correct it, or leave such rows out, counted in report.json: data.on_invalid=drop"
    )


class _Typing:
    """Finds the SQL and the rules of every column from the types in ``raw``, or, for text files, from the values."""

    def __init__(self, workspace: Workspace, source: Source) -> None:
        self.workspace = workspace
        self.source = source
        self.types = {name: kind for name, kind, *_ in workspace.query("DESCRIBE raw")}

    def columns(self, columns: Columns) -> list[Typed]:
        typed = [self.entity(USER, columns.user), self.entity(ITEM, columns.item), self.label(columns)]
        typed += [self.feature(name) for name in columns.categorical]
        typed += [self.dense(name) for name in columns.dense]
        if columns.time is not None:
            typed.append(self.time(columns.time))
        if columns.split is not None:
            typed.append(self.split(columns.split))
        return typed

    def entity(self, name: str, column: str) -> Typed:
        raw = quoted(column)
        null = Rule(column, "null id", f"{raw} IS NULL")
        if self._is(column, _TEXT) and not (self.source.text and self._holds_only_integers(column)):
            return Typed(name, f"{raw}::VARCHAR", (null,))
        self._require(column, (*_INT64, "UBIGINT", "HUGEINT", "UHUGEINT", *_TEXT), "an id: whole numbers or text")
        value = f"TRY_CAST({raw} AS BIGINT)"
        too_large = Rule(column, "id outside the range of int64", f"{value} IS NULL")
        return Typed(name, value, (null, too_large, Rule(column, "negative id", f"{value} < 0")))

    def label(self, columns: Columns) -> Typed:
        if columns.without_labels:
            return Typed(LABEL, "1::FLOAT")
        column = columns.label or columns.rating
        self._require(column, (*_NUMBERS, *_TEXT), "a label or a rating: numbers")
        if columns.label is None:
            value = f"TRY_CAST({quoted(column)} AS DOUBLE)"
            return Typed(LABEL, f"({value} >= {columns.threshold!r})::FLOAT", self._finite(column, "rating", value))
        text = f"lower({quoted(column)}::VARCHAR)"
        value = f"CASE {text} WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE TRY_CAST({text} AS DOUBLE) END"
        binary = Rule(
            column,
            "label is not 0 or 1 (for ratings set data.rating and data.threshold instead of data.label)",
            f"({value}) IS NULL OR ({value}) NOT IN (0, 1)",
        )
        return Typed(LABEL, f"({value})::FLOAT", (Rule(column, "null label", f"{quoted(column)} IS NULL"), binary))

    def dense(self, column: str) -> Typed:
        self._require(column, (*_NUMBERS, *_TEXT), "a dense feature: numbers")
        value = f"TRY_CAST({quoted(column)} AS FLOAT)"
        return Typed(column, value, self._finite(column, "value", value))

    def feature(self, column: str) -> Typed:
        if self._is(column, _NESTED) or self.types[column].endswith("]"):
            raise DataError(self._misfit(column, "a categorical feature: one value per row"))
        integers = self._is(column, _INT64) or (self.source.text and self._holds_only_integers(column))
        return Typed(column, f"{quoted(column)}::{'BIGINT' if integers else 'VARCHAR'}")

    def time(self, column: str) -> Typed:
        raw = quoted(column)
        null = Rule(column, "null time", f"{raw} IS NULL")
        if self._is(column, _TEXT):
            kind = self._time_type(column)
            value = f"TRY_CAST({raw} AS {kind})"
            misfit = f"{value} IS NULL OR NOT isfinite({value})"
            return Typed(TIME, value, (null, Rule(column, "time is not a number or a timestamp", misfit)))
        self._require(column, (*_NUMBERS, *_MOMENTS), "a time: a number, date or timestamp")
        return Typed(TIME, raw, self._finite(column, "time", raw) if self._is(column, ("FLOAT", "DOUBLE")) else (null,))

    def split(self, column: str) -> Typed:
        self._require(column, _TEXT, "a split: train, validation or test")
        place = f"list_position({list(SPLITS)}, {quoted(column)})"
        unknown = Rule(column, "split is not train, validation or test", f"{place} IS NULL")
        return Typed(GIVEN, f"({place} - 1)::TINYINT", (unknown,))

    def _finite(self, column: str, noun: str, value: str) -> tuple[Rule, ...]:
        raw = quoted(column)
        finite = f"({value}) IS NULL OR NOT isfinite({value})"
        return Rule(column, f"null {noun}", f"{raw} IS NULL"), Rule(column, f"{noun} is not a finite number", finite)

    def _is(self, column: str, kinds: tuple[str, ...]) -> bool:
        return self.types[column].startswith(kinds)

    def _require(self, column: str, kinds: tuple[str, ...], meaning: str) -> None:
        if not self._is(column, kinds) or self.types[column].endswith("]"):
            raise DataError(self._misfit(column, meaning))

    def _misfit(self, column: str, meaning: str) -> str:
        kind = self.types[column]
        return (
            f"{self.source.description}: column {column!r} has the type {kind}, but is meant as {meaning}. Convert it"
        )

    def _holds_only_integers(self, column: str) -> bool:
        """Whether every value reads back as it was written: 007 and 1.0 do not."""
        return self._share(column, f"TRY_CAST({quoted(column)} AS BIGINT)::VARCHAR = {quoted(column)}") == 1

    def _time_type(self, column: str) -> str:
        """The type that most values have; the others are reported as invalid."""
        if self._holds_only_integers(column):
            return "BIGINT"
        kinds = ("DOUBLE", "TIMESTAMP")
        return max(kinds, key=lambda kind: self._share(column, f"TRY_CAST({quoted(column)} AS {kind}) IS NOT NULL"))

    def _share(self, column: str, condition: str) -> float:
        """The share of the values that are not null for which `condition` is true."""
        [(share,)] = self.workspace.query(
            f"SELECT avg(coalesce({condition}, false)::INT) FROM raw WHERE {quoted(column)} IS NOT NULL"
        )
        return share or 0.0
