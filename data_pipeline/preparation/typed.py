"""``raw`` -> SQL and rules of every prepared column, by the types in ``raw`` or, of text files, by the values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE, GIVEN, ITEM, LABEL, TIME, USER, Columns
from data_pipeline.preparation.kept import keeps_text
from data_pipeline.preparation.lists import entries_of_text, no_json
from data_pipeline.preparation.read import Rule, Source
from data_pipeline.preparation.spelling import (
    refuse_double_spelling,
    warn_of_double_spelling,
    warn_of_written_nulls,
)
from data_pipeline.preparation.time_checks import refuse_mixed_offsets, refuse_mixed_units
from data_pipeline.preparation.times import UNITS, TimeUnit, nanoseconds_of, size_of, to_nanoseconds
from data_pipeline.preparation.workspace import Workspace, literal, quoted
from data_pipeline.schema import REQUEST, SPLITS, WEIGHT

_INT64 = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_NUMBERS = (*_INT64, "UBIGINT", "HUGEINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "BOOLEAN")
_REAL = {"FLOAT": 2**24, "DOUBLE": 2**53}  # up to it every whole number is represented exactly
_DATES = ("DATE", "TIMESTAMP")
_TEXT = ("VARCHAR",)
_NESTED = ("STRUCT", "MAP", "UNION", "LIST", "ARRAY")


@dataclass(frozen=True)
class TypedColumn:
    """A prepared column.

    Attributes:
        name: Name of the prepared column.
        value: SQL over ``raw``, for rows that break none of ``rules``.
        rules: Conditions of a valid row.
    """

    name: str
    value: str
    rules: tuple[Rule, ...] = ()

    @property
    def is_integer(self) -> bool:
        """Whether the ids of the column are numbers."""
        return self.value.endswith(("AS BIGINT)", "::BIGINT"))


class ColumnTypes:
    """Finds the SQL and the rules of every column from the types in ``raw`` or, of text files, from the values.

    Args:
        workspace: Workspace that holds ``raw``.
        source: Source of ``raw``.
    """

    def __init__(self, workspace: Workspace, source: Source) -> None:
        self.workspace = workspace
        self.source = source
        self.types = {name: kind for name, kind, *_ in workspace.inspect("DESCRIBE raw")}

    def of_all(self, columns: Columns) -> list[TypedColumn]:
        typed = [self.entity(USER, columns.user), self.entity(ITEM, columns.item), self.label(columns)]
        typed += [self.binary(name, name) for name in columns.further_labels]
        typed += [self.feature(name) for name in columns.categorical]
        typed += [self.ids(name, columns, {column.name: column for column in typed}) for name in columns.lists.names]
        typed += [self.dense(name, nullable=name in columns.nullable) for name in columns.dense]
        if columns.time is not None:
            typed.append(self.time(columns.time, columns.time_unit))
        if columns.request is not None:
            typed.append(self.request(columns.request, columns.user))
        if columns.weight is not None:
            typed.append(self.weight(columns.weight))
        if columns.split is not None:
            typed.append(self.split(columns.split))
        return typed

    def entity(self, name: str, column: str) -> TypedColumn:
        raw = quoted(column)
        null = Rule(column, "null id", f"{raw} IS NULL")
        if self._is(column, _TEXT):
            null = Rule(column, "null or empty id", f"{raw} IS NULL OR trim({raw}) = ''")
        if self._is(column, _TEXT) and not self._are_numbers(name, column):
            refuse_double_spelling(self.workspace, self.source, column)
            warn_of_written_nulls(self.workspace, self.source, column)
            return TypedColumn(name, f"{raw}::VARCHAR", (null,))
        self._require(column, (*_NUMBERS, *_TEXT), "an id: whole numbers or text", unfit=("BOOLEAN",))
        rules = [null]
        if self._is(column, ("FLOAT", "DOUBLE", "DECIMAL")):
            whole = f"isfinite({raw}::DOUBLE) AND {raw} = trunc({raw})"
            rules.append(Rule(column, "id is not a whole number", f"NOT ({whole})"))
        for kind, rounded in self._rounded(column).items():
            reason = f"id beyond {_REAL[kind]}, which the type {kind} may have rounded to another id"
            rules.append(Rule(column, reason, rounded))
        value = f"TRY_CAST({raw} AS BIGINT)"
        text = "with a letter before it, such as h-5" if self.source.text else f"as text, CAST({raw} AS VARCHAR)"
        remedy = f"Write a hash, or any id that is not a count, {text}; correct other ids"
        rules.append(Rule(column, "id outside the range of int64", f"{value} IS NULL", remedy))
        return TypedColumn(name, value, (*rules, Rule(column, "negative id", f"{value} < 0", remedy)))

    def request(self, column: str, user: str) -> TypedColumn:
        """Type a column of request ids: ids like those of users, each of one user."""
        typed, raw = self.entity(REQUEST, column), quoted(column)
        shared = f"(SELECT {raw} FROM raw GROUP BY {raw} HAVING count(DISTINCT {quoted(user)}) > 1)"
        several = Rule(column, f"request of several users (column {user!r})", f"{raw} IN {shared}")
        return TypedColumn(REQUEST, typed.value, (*typed.rules, several))

    def label(self, columns: Columns) -> TypedColumn:
        column = columns.label or columns.rating
        if column is None:
            return TypedColumn(LABEL, "1::FLOAT")
        if columns.label is None:
            self._require(column, (*_NUMBERS, *_TEXT), "a rating: numbers")
            # the number of a text file: float32's 4.1 is 4.099999904632568 as a float64, below a threshold of 4.1
            text = "::VARCHAR" if self.types[column] == "FLOAT" else ""
            value = f"TRY_CAST({quoted(column)}{text} AS DOUBLE)"
            return TypedColumn(
                LABEL, f"({value} >= {columns.threshold!r})::FLOAT", self._finite(column, "rating", value)
            )
        return self.binary(LABEL, column)

    def binary(self, name: str, column: str) -> TypedColumn:
        self._require(column, (*_NUMBERS, *_TEXT), "a label: 0 or 1")
        text = f"lower({quoted(column)}::VARCHAR)"
        value = f"CASE {text} WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE TRY_CAST({text} AS DOUBLE) END"
        binary = Rule(
            column,
            "label is not 0 or 1 (for ratings set data.rating and data.threshold instead of data.label)",
            f"({value}) IS NULL OR ({value}) NOT IN (0, 1)",
        )
        null = Rule(column, "null label", f"{quoted(column)} IS NULL")
        return TypedColumn(name, f"({value})::FLOAT", (null, binary))

    def dense(self, column: str, *, nullable: bool = False) -> TypedColumn:
        self._require(column, (*_NUMBERS, *_TEXT), "a dense feature: numbers")
        value = f"TRY_CAST({quoted(column)} AS FLOAT)"
        if not nullable:
            fill = f"Fill missing values by data.dense_transforms.{column}.fill=mean (median, or a number), correct it"
            rules = self._finite(column, "value", value)
            return TypedColumn(column, value, tuple(replace(rule, remedy=fill) for rule in rules))
        wrong = f"{quoted(column)} IS NOT NULL AND {quoted(column)}::VARCHAR <> '' AND coalesce(isinf({value}), true)"
        rule = Rule(column, "value is not a number", wrong)
        return TypedColumn(column, f"CASE WHEN isnan({value}) THEN NULL ELSE {value} END", (rule,))

    def weight(self, column: str) -> TypedColumn:
        self._require(column, (*_NUMBERS, *_TEXT), "a weight: numbers")
        value = f"TRY_CAST({quoted(column)} AS FLOAT)"
        negative = Rule(column, "negative weight", f"({value}) < 0")
        return TypedColumn(WEIGHT, value, (*self._finite(column, "weight", value), negative))

    def feature(self, column: str) -> TypedColumn:
        if self._is(column, _NESTED) or self.types[column].endswith("]"):
            raise DataError(self._misfit(column, "a categorical feature: one value per row"))
        integers = self._is(column, _INT64) or self._are_numbers(column, column)
        if not integers and self._is(column, _TEXT):
            warn_of_double_spelling(self.workspace, self.source, column)
        if (exact := _REAL.get(self.types[column])) is not None:  # as pandas writes whole numbers with nulls among them
            raw = quoted(column)
            integers = self._share(column, f"abs({raw}) <= {exact} AND {raw} = trunc({raw})") == 1
        return TypedColumn(column, f"{quoted(column)}::{'BIGINT' if integers else 'VARCHAR'}")

    def ids(self, column: str, columns: Columns, typed: Mapping[str, TypedColumn]) -> TypedColumn:
        """Type a column of lists, like the column ``typed`` whose ids it has, if it has those of another."""
        rules, values = [], quoted(column)
        if not self.types[column].endswith("[]"):
            self._require(column, _TEXT, "lists of ids, or text with separators")
            reason = 'text with brackets that is no JSON list, such as ["a", "b"]'
            rules.append(Rule(column, reason, no_json(column)))
            values = entries_of_text(column, columns.lists.separator)
        elif self.types[column].count("[") > 1 or self.types[column].startswith(("STRUCT", "MAP", "UNION")):
            raise DataError(self._misfit(column, "lists of ids: one value per entry"))
        empty = f"len(list_filter({values}, lambda entry: entry IS NULL OR entry::VARCHAR = '')) > 0"
        rules.append(Rule(column, "a list with an empty entry", empty))
        shared = columns.lists.vocabularies.get(column)
        whole = "TRY_CAST(entry AS BIGINT)::VARCHAR = regexp_replace(entry::VARCHAR, '\\.0$', '')"
        if shared is None:
            integers = (
                not keeps_text(self.workspace, column) if self.source.text else self._is(column, (*_INT64, *_REAL))
            )
            integers = integers and self._entries_are_integers(values, whole)
        elif integers := typed[columns.vocabularies[shared]].is_integer:
            reason = f"a list with an entry that is not a whole number, as the ids of column {shared!r} are"
            rules.append(
                Rule(column, reason, f"len(list_filter({values}, lambda entry: NOT coalesce({whole}, false))) > 0")
            )
        kind = "BIGINT" if integers else "VARCHAR"
        return TypedColumn(column, f"coalesce(({values})::{kind}[], []::{kind}[])", tuple(rules))

    def time(self, column: str, unit: TimeUnit | None) -> TypedColumn:
        raw = quoted(column)
        rules = [Rule(column, "null time", f"{raw} IS NULL")]
        if self._is(column, _TEXT):
            kind = self._time_type(column)
            if kind == "TIMESTAMP":
                return self._timestamp_text(column, unit)
            value, exact = f"TRY_CAST({raw} AS {kind})", kind == "BIGINT"
            rules.append(
                Rule(column, "time is not a number or a timestamp, such as 2019-11-05 17:30:00", f"{value} IS NULL")
            )
        else:
            self._require(column, (*_NUMBERS, *_DATES), "a time: a number, date or timestamp")
            value, exact = raw, not self._is(column, ("FLOAT", "DOUBLE", "DECIMAL"))
            if self.types[column] in _REAL:
                rules = list(self._finite(column, "time", raw))
            if (rounded := self._rounded(column).get("FLOAT")) and self._share(column, rounded):
                self.workspace.warn(
                    f"column {column!r} of {self.source.description}: times of the type FLOAT beyond {_REAL['FLOAT']}"
                    " are rounded, seconds since 1970 to 128 s: rows tie or change their order. Write whole numbers"
                )
            if self._is(column, _DATES):
                self._refuse_unit(column, unit)
                return TypedColumn(TIME, value, tuple(rules))
        if unit is None:
            refuse_mixed_units(self.workspace, self.source, column, value)
        if unit in UNITS:
            reason = f"time is outside the range of data.time_unit = {unit}"
            rules.append(Rule(column, reason, f"{size_of(value)} <> '{unit}'"))
        return TypedColumn(TIME, to_nanoseconds(value, exact) if unit == "mixed" else value, tuple(rules))

    def _timestamp_text(self, column: str, unit: TimeUnit | None) -> TypedColumn:
        self._refuse_unit(column, unit)
        refuse_mixed_offsets(self.workspace, self.source, column)
        raw = quoted(column)
        value = nanoseconds_of(raw)
        misfit = Rule(column, "time is not a number or a timestamp, such as 2019-11-05 17:30:00", f"{value} IS NULL")
        return TypedColumn(TIME, value, (Rule(column, "null time", f"{raw} IS NULL"), misfit))

    def _refuse_unit(self, column: str, unit: TimeUnit | None) -> None:
        if unit is not None:
            raise DataError(
                f"data.time_unit = {unit}: only for numbers, but column {column!r} of {self.source.description} has"
                " dates or timestamps. Set data.time_unit=null"
            )

    def split(self, column: str) -> TypedColumn:
        self._require(column, _TEXT, "a split: train, validation or test")
        number = f"list_position([{', '.join(map(literal, SPLITS))}], {quoted(column)})"
        unknown = Rule(column, "split is not train, validation or test", f"{number} IS NULL")
        return TypedColumn(GIVEN, f"({number} - 1)::TINYINT", (unknown,))

    def _rounded(self, column: str) -> dict[str, str]:
        """Return the conditions of whole numbers that a floating-point type may have rounded, by this type."""
        beyond = {kind: f"abs({quoted(column)}) > {exact}" for kind, exact in _REAL.items()}
        found = {kind: beyond[kind] for kind in beyond if kind == self.types[column]}
        if "DOUBLE" in found and (files := self.source.float32.get(column)):  # read as DOUBLE, as other files need it
            found["FLOAT"] = f"{beyond['FLOAT']} AND {FILE} IN ({', '.join(literal(str(file)) for file in files)})"
        return found

    def _finite(self, column: str, noun: str, value: str) -> tuple[Rule, ...]:
        raw = quoted(column)
        finite = f"({value}) IS NULL OR NOT isfinite({value})"
        return Rule(column, f"null {noun}", f"{raw} IS NULL"), Rule(column, f"{noun} is not a finite number", finite)

    def _is(self, column: str, kinds: tuple[str, ...]) -> bool:
        return self.types[column].startswith(kinds)

    def _require(self, column: str, kinds: tuple[str, ...], meaning: str, unfit: tuple[str, ...] = ()) -> None:
        if not self._is(column, kinds) or self.types[column].endswith("]") or self.types[column] in unfit:
            raise DataError(self._misfit(column, meaning))

    def _misfit(self, column: str, meaning: str) -> str:
        kind = self.types[column]
        return f"{self.source.description}: column {column!r} has the type {kind}, but it must be {meaning}. Convert it"

    def _are_numbers(self, name: str, column: str) -> bool:
        """Return whether ids in a text file become numbers: they are written as such, and those to keep are no text."""
        return self.source.text and self._holds_only_integers(column) and not keeps_text(self.workspace, name)

    def _holds_only_integers(self, column: str) -> bool:
        """Return whether every value reads back as it was written: 007 and 1.0 do not."""
        return self._share(column, f"TRY_CAST({quoted(column)} AS BIGINT)::VARCHAR = {quoted(column)}") == 1

    def _entries_are_integers(self, values: str, whole: str) -> bool:
        [(share,)] = self.workspace.query(
            f"SELECT avg(coalesce({whole}, false)::INT) FROM (SELECT unnest({values}) AS entry FROM raw)"
            " WHERE entry IS NOT NULL AND entry::VARCHAR <> ''"
        )
        return share == 1

    def _time_type(self, column: str) -> str:
        """Return the type of most values; the others are reported as invalid."""
        if self._holds_only_integers(column):
            return "BIGINT"
        raw = quoted(column)
        values = {"DECIMAL(38, 9)": f"TRY_CAST({raw} AS DECIMAL(38, 9))", "TIMESTAMP": nanoseconds_of(raw)}
        return max(values, key=lambda kind: self._share(column, f"{values[kind]} IS NOT NULL"))

    def _share(self, column: str, condition: str) -> float:
        """Return the share of the values that are not null for which ``condition`` is true."""
        counts = self.workspace.over_raw(
            f"SELECT count(*) FILTER (WHERE {condition}) AS fitting, count(*) AS n FROM raw"
            f" WHERE {quoted(column)} IS NOT NULL"
        )
        [(fitting, values)] = self.workspace.query(f"SELECT sum(fitting)::BIGINT, sum(n)::BIGINT FROM {counts}")
        return fitting / values if values else 0.0
