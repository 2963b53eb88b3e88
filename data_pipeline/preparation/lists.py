"""Columns of lists of ids: their entries, typed; their lengths; and their encoded ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from data_pipeline.errors import DataError
from data_pipeline.preparation.workspace import Workspace, literal, quoted
from data_pipeline.schema import Categorical

LIST_SEPARATOR = "|"


@dataclass(frozen=True)
class ListColumns:
    """The columns whose rows have a list of ids, such as genres, tags or an interaction history.

    Attributes:
        names: Columns of lists in Parquet and Arrow or, in text, of entries between separators or of JSON lists. Null
            and empty text are the empty list. They keep their names.
        vocabularies: For a list column, the column whose ids it has: the user, the item or a categorical feature. Both
            share an id table and an embedding table. Other list columns have ids of their own.
        separator: Separator of the entries in text.
        longest: The greatest number of entries; of a longer list the last ones are kept, which are the newest of an
            interaction history. None keeps all.
    """

    names: tuple[str, ...] = ()
    vocabularies: Mapping[str, str] = field(default_factory=dict)
    separator: str = LIST_SEPARATOR
    longest: int | None = None

    def check(self, allowed: Mapping[str, str]) -> None:
        """Refuse settings that do nothing, and vocabularies of other columns than the ``allowed`` ones.

        Raises:
            DataError: With the key and what is allowed.
        """
        idle = {
            "list_vocabularies": (self.vocabularies, {}),
            "list_separator": (self.separator, LIST_SEPARATOR),
            "list_length": (self.longest, None),
        }
        for key, (value, usual) in idle.items():
            if not self.names and value != usual:
                raise DataError(f"data.{key} = {value}: does nothing without data.lists=[COLUMN]. Leave it out")
        if not self.separator:
            raise DataError("data.list_separator must not be empty. Set the text between two entries, such as |")
        for name, column in self.vocabularies.items():
            if name not in self.names:
                raise DataError(
                    f"data.list_vocabularies.{name} = {column}: {name!r} is not among data.lists:"
                    f" {', '.join(self.names)}"
                )
            if column not in allowed:
                raise DataError(
                    f"data.list_vocabularies.{name} = {column}: must be a column with an id per row:"
                    f" {', '.join(allowed)}"
                )


NO_LISTS = ListColumns()


def entries_of_text(column: str, separator: str) -> str:
    """Return SQL for the entries of a text: those of a JSON list, or those between separators without spaces around."""
    raw = quoted(column)
    parts = f"list_transform(string_split({raw}, {literal(separator)}), lambda entry: trim(entry))"
    json = f"""from_json({raw}, '["VARCHAR"]')"""
    return (
        f"CASE WHEN trim({raw}) = '' THEN []::VARCHAR[]"
        f" WHEN {_in_brackets(column)} AND json_valid({raw}) THEN {json} ELSE {parts} END"
    )


def no_json(column: str) -> str:
    """Return SQL that is true for a text that is meant as a JSON list and is none.

    That is a text in brackets, one that starts as a list of texts, or one that starts or ends with a bracket and has
    another number of opening than of closing ones. Entries such as ``[live] concert`` are no JSON.
    """
    text = f"trim({quoted(column)})"
    opening, closing = (f"length({text}) - length(replace({text}, '{bracket}', ''))" for bracket in "[]")
    unequal = f"({text} LIKE '[%' OR {text} LIKE '%]') AND {opening} <> {closing}"
    begun = f"regexp_matches({text}, '^\\[\\s*\"')"
    return f"({_in_brackets(column)} OR {begun} OR ({unequal})) AND NOT json_valid({quoted(column)})"


def _in_brackets(column: str) -> str:
    return f"regexp_full_match(trim({quoted(column)}), '\\[.*\\]', 's')"


def cut_lists(workspace: Workspace, lists: ListColumns) -> dict[str, int]:
    """Cut the lists of ``rows`` to their last entries; return the number of rows that had more, by column.

    Raises:
        DataError: A column has no entry at all.
    """
    found = {}
    for name in lists.names:
        column = quoted(name)
        [(longest,)] = workspace.query(f"SELECT max(len({column})) FROM rows")
        if not longest:
            raise DataError(f"column {name!r}: every list is empty. Correct the column, or leave it out of data.lists")
        if lists.longest is not None:
            [(found[name],)] = workspace.query(f"SELECT count(*) FROM rows WHERE len({column}) > {lists.longest}")
            if found[name]:
                workspace.query(
                    f"UPDATE rows SET {column} = {column}[-{lists.longest}:] WHERE len({column}) > {lists.longest}"
                )
    return {name: count for name, count in found.items() if count}


def entries(column: str) -> str:
    """Return the SQL of the entries of a list column of ``rows``, each with ``__seen``: whether it is in training.

    Equal lists are read once: all rows of a request have the same interaction history.
    """
    name = quoted(column)
    return (
        f"SELECT unnest({name}) AS original_id, __seen"
        f" FROM (SELECT {name}, bool_or(__split = 0) AS __seen FROM rows GROUP BY {name})"
    )


def encode_lists(workspace: Workspace, column: str, table: str, like: Categorical) -> Categorical:
    """Create the table of the distinct lists of a column with their encoded ids, in the same order.

    Args:
        workspace: Workspace that holds ``rows`` and the id table.
        column: Column of lists.
        table: Id table, as SQL.
        like: Column whose ids the lists have.

    Returns:
        The column of lists.
    """
    workspace.on_progress(f"encoding the lists of {column}")
    name = quoted(column)
    workspace.query(f"""
        CREATE TABLE {_encoded_table(column)} AS
        SELECT original, list(ids.id ORDER BY place) AS ids
        FROM (
            SELECT original, unnest(original) AS entry, generate_subscripts(original, 1) AS place
            FROM (SELECT DISTINCT {name} AS original FROM rows)
        ) JOIN {table} AS ids ON ids.original_id = entry
        GROUP BY original""")
    [(longest,)] = workspace.query(f"SELECT max(len({name})) FROM rows")
    shared = "" if like.table_name == column else like.table_name
    return replace(like, name=column, role="feature", sequence=True, table=shared, max_length=longest)


def encoded_list(column: str) -> str:
    """Return the SQL of a column's encoded list, for a query over ``rows`` with `joined_lists`."""
    return f"coalesce({_encoded_table(column)}.ids, []::BIGINT[])"


def joined_lists(columns: tuple[str, ...]) -> str:
    """Return the SQL that joins the encoded lists of ``columns`` to ``rows``."""
    return " ".join(
        f"LEFT JOIN {_encoded_table(name)} ON {_encoded_table(name)}.original = rows.{quoted(name)}" for name in columns
    )


def _encoded_table(column: str) -> str:
    return quoted(f"lists {column}")
