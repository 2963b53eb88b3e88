"""``rows`` -> one id table per categorical column: original id <-> encoded id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.id_tables import id_table_path
from data_pipeline.parquet_files import write_parquet
from data_pipeline.preparation.columns import ITEM, SPLIT, USER, Columns
from data_pipeline.preparation.kept import kept_ids
from data_pipeline.preparation.lists import encode_lists, entries
from data_pipeline.preparation.rare import KEEP_ALL, RareRule
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.rare_ids import ROW
from data_pipeline.schema import Categorical, Role


def encode_ids(
    workspace: Workspace, columns: Columns, folder: Path, rare: Mapping[str, RareRule]
) -> tuple[Categorical, ...]:
    """Encode the user, the item, every categorical feature and every list column of ``rows``; see `encode_column`."""
    roles: dict[str, Role] = {USER: "user", ITEM: "item"}
    tables = {
        name: columns.vocabularies[columns.lists.vocabularies[name]] if name in columns.lists.vocabularies else name
        for name in columns.lists.names
    }
    encoded: dict[str, Categorical] = {}
    for name in (USER, ITEM, *columns.categorical):
        sharing, rule = [of_lists for of_lists, table in tables.items() if table == name], rare.get(name, KEEP_ALL)
        encoded[name] = encode_column(workspace, name, roles.get(name, "feature"), folder, sharing, rule)
    for name, table in tables.items():
        like = encoded[table] if table != name else encode_column(workspace, name, "feature", folder, [name])
        encoded[name] = encode_lists(workspace, name, id_table(table), like)
    return tuple(encoded.values())


def encode_column(
    workspace: Workspace,
    name: str,
    role: Role,
    folder: Path,
    lists: Sequence[str] = (),
    rare: RareRule = KEEP_ALL,
) -> Categorical:
    """Number the ids of one column of ``rows``, and write its id table (see `data_pipeline.id_tables`).

    Ids of training come first, in order of the original id, then kept ones (see `kept`); those that occur only in
    validation or test, or in too few rows of training, follow. In a feature null is an id as well, the last of its
    group, with a null ``original_id``.

    Args:
        workspace: Workspace that holds ``rows``.
        name: Name of the id table: the column of ids, unless it is among ``lists``.
        role: Role of the column.
        folder: The prepared folder.
        lists: Columns of lists whose entries are ids of the table as well.
        rare: Least rows of an id in training, in which entries of lists do not count.

    Raises:
        DataError: No id has so many rows, or the folder of ids to keep has no such ids.
    """
    workspace.on_progress(f"encoding {name}")
    table = id_table(name)
    of_rows = f"SELECT {quoted(name)} AS original_id, {SPLIT} = 0 AS __seen, ({SPLIT} = 0)::INT AS __rows FROM rows"
    of_lists = [f"SELECT *, 0 AS __rows FROM ({entries(each)})" for each in lists]
    found = " UNION ALL ".join([*([] if name in lists else [of_rows]), *of_lists])
    enough = f"sum(__rows) >= {rare.min_count}" if rare.min_count > 1 else "bool_or(__seen)"
    here = f"SELECT *, false AS __kept FROM ({found})"
    both = " UNION ALL ".join([here, *kept_ids(workspace, name, here)])
    ids = f"""
        SELECT original_id, {enough} OR bool_or(__kept) AS seen, bool_or(__kept) AND NOT bool_or(__seen) AS kept,
            bool_and(__kept) AS absent, sum(__rows) AS occurrences
        FROM ({both}) GROUP BY original_id"""
    numbered = workspace.numbered(ids, "NOT seen, kept, original_id NULLS LAST")
    workspace.query(f"CREATE TABLE {table} AS SELECT __number AS id, * EXCLUDE (__number) FROM {numbered}")
    [(num_ids, num_seen, kept)] = workspace.query(
        f"SELECT count(*), count(*) FILTER (WHERE seen), count(*) FILTER (WHERE kept) FROM {table}"
    )
    if not num_seen and rare.min_count > 1 and (role != "feature" or not rare.buckets):
        [(most,)] = workspace.query(f"SELECT max(occurrences) FROM {table}")
        raise DataError(
            f"data.min_count = {rare.min_count}: no id of {name} has so many training rows; the most frequent one has"
            f" {most}. Lower it"
        )
    row = f", CASE WHEN seen THEN id ELSE {num_seen} + {_bucket(rare)} END::BIGINT AS {ROW}" if rare.buckets else ""
    path = id_table_path(folder, name)
    path.parent.mkdir(exist_ok=True)
    write_parquet(workspace.stream(f"SELECT id, original_id{row} FROM {table} ORDER BY id"), path)
    return Categorical(name, num_ids=num_ids, num_seen=num_seen, role=role, buckets=rare.buckets, kept=kept)


def count_present(workspace: Workspace, name: str) -> int:
    """Count the ids of a column that some row has: all but those that are only kept."""
    [(count,)] = workspace.query(f"SELECT count(*) FILTER (WHERE NOT absent) FROM {id_table(name)}")
    return count


def count_rare(workspace: Workspace, name: str, rare: RareRule) -> dict[str, int]:
    """Count the rare ids of training, their rows, their buckets, and those that share one with another rare id."""
    [(ids, rows, used, shared)] = workspace.query(f"""
        SELECT coalesce(sum(n), 0)::BIGINT, coalesce(sum(rows), 0)::BIGINT, count(*),
            coalesce(sum(n) FILTER (n > 1), 0)::BIGINT
        FROM (SELECT {_bucket(rare)} AS bucket, count(*) AS n, sum(occurrences) AS rows FROM {id_table(name)}
              WHERE NOT seen AND occurrences > 0 GROUP BY bucket)""")
    counts = {"min_count": rare.min_count, "ids": ids, "rows": rows}
    return counts | ({"buckets": rare.buckets, "used": used, "collisions": shared} if rare.buckets else {})


def _bucket(rare: RareRule) -> str:
    """Return the SQL of an id's bucket, as `data_pipeline.rare_ids.buckets_of` computes it."""
    return f"md5_number_lower(coalesce(original_id::VARCHAR, '')) % {rare.buckets}" if rare.buckets else "0"


def id_table(column: str) -> str:
    """Return the name of a column's id table, as SQL."""
    return quoted(f"ids {column}")


def encoded(column: str) -> str:
    """Return the SQL of a column's encoded id, for a query over `rows_with_ids`."""
    return f"{id_table(column)}.id"


def rows_with_ids(*columns: str) -> str:
    """Return the SQL of ``rows`` joined to the id tables of ``columns``."""
    joins = (
        f"JOIN {id_table(name)} ON {id_table(name)}.original_id IS NOT DISTINCT FROM rows.{quoted(name)}"
        for name in columns
    )
    return " ".join(["rows", *joins])
