"""``rows`` -> one id table per categorical column: original id <-> encoded id."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.id_tables import id_table_path
from data_pipeline.parquet_files import BATCH_ROWS, write_parquet
from data_pipeline.preparation.columns import ITEM, SPLIT, USER, Columns
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.schema import Categorical, Role


def encode_ids(workspace: Workspace, columns: Columns, folder: Path) -> tuple[Categorical, ...]:
    """Encode the user, the item and every categorical feature of ``rows``; see `encode_column`."""
    roles: dict[str, Role] = {USER: "user", ITEM: "item"}
    names = (USER, ITEM, *columns.categorical)
    return tuple(encode_column(workspace, name, roles.get(name, "feature"), folder) for name in names)


def encode_column(workspace: Workspace, name: str, role: Role, folder: Path) -> Categorical:
    """Number the ids of one column of ``rows``, and write its id table (see `data_pipeline.id_tables`).

    Ids of training come first, in order of the original id; those that occur only in validation or test follow. In a
    feature null is an id as well, the last of its group, with a null ``original_id``.
    """
    workspace.on_progress(f"encoding {name}")
    table = id_table(name)
    workspace.query(f"""
        CREATE TABLE {table} AS
        SELECT row_number() OVER (ORDER BY NOT seen, original_id NULLS LAST) - 1 AS id, original_id, seen
        FROM (SELECT {quoted(name)} AS original_id, bool_or({SPLIT} = 0) AS seen FROM rows GROUP BY ALL)""")
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
