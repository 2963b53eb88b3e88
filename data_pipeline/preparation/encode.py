"""``rows`` -> one id table per categorical column: original id <-> encoded id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from data_pipeline.id_tables import id_table_path
from data_pipeline.parquet_files import BATCH_ROWS, write_parquet
from data_pipeline.preparation.columns import ITEM, SPLIT, USER, Columns
from data_pipeline.preparation.lists import encode_lists, entries
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.schema import Categorical, Role


def encode_ids(workspace: Workspace, columns: Columns, folder: Path) -> tuple[Categorical, ...]:
    """Encode the user, the item, every categorical feature and every list column of ``rows``; see `encode_column`."""
    roles: dict[str, Role] = {USER: "user", ITEM: "item"}
    tables = {
        name: columns.vocabularies[columns.lists.vocabularies[name]] if name in columns.lists.vocabularies else name
        for name in columns.lists.names
    }
    encoded: dict[str, Categorical] = {}
    for name in (USER, ITEM, *columns.categorical):
        sharing = [of_lists for of_lists, table in tables.items() if table == name]
        encoded[name] = encode_column(workspace, name, roles.get(name, "feature"), folder, sharing)
    for name, table in tables.items():
        like = encoded[table] if table != name else encode_column(workspace, name, "feature", folder, [name])
        encoded[name] = encode_lists(workspace, name, id_table(table), like)
    return tuple(encoded.values())


def encode_column(workspace: Workspace, name: str, role: Role, folder: Path, lists: Sequence[str] = ()) -> Categorical:
    """Number the ids of one column of ``rows``, and write its id table (see `data_pipeline.id_tables`).

    Ids of training come first, in order of the original id; those that occur only in validation or test follow. In a
    feature null is an id as well, the last of its group, with a null ``original_id``.

    Args:
        workspace: Workspace that holds ``rows``.
        name: Name of the id table: the column of ids, unless it is among ``lists``.
        role: Role of the column.
        folder: The prepared folder.
        lists: Columns of lists whose entries are ids of the table as well.
    """
    workspace.on_progress(f"encoding {name}")
    table = id_table(name)
    parts = [] if name in lists else [f"SELECT {quoted(name)} AS original_id, {SPLIT} = 0 AS __seen FROM rows"]
    occurrences = " UNION ALL ".join([*parts, *map(entries, lists)])
    workspace.query(f"""
        CREATE TABLE {table} AS
        SELECT row_number() OVER (ORDER BY NOT seen, original_id NULLS LAST) - 1 AS id, original_id, seen
        FROM (SELECT original_id, bool_or(__seen) AS seen FROM ({occurrences}) GROUP BY ALL)""")
    ids = workspace.connection.sql(f"SELECT id, original_id FROM {table} ORDER BY id")
    path = id_table_path(folder, name)
    path.parent.mkdir(exist_ok=True)
    write_parquet(ids.to_arrow_reader(BATCH_ROWS), path)
    [(num_ids, num_seen)] = workspace.query(f"SELECT count(*), count(*) FILTER (WHERE seen) FROM {table}")
    return Categorical(name, num_ids=num_ids, num_seen=num_seen, role=role)


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
