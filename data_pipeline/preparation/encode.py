"""``rows`` -> one id table per categorical column: original id <-> encoded id."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.preparation.columns import ITEM, SPLIT, USER, Columns
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.preparation.writer import write_table
from data_pipeline.schema import Categorical, Role


def encode_ids(workspace: Workspace, columns: Columns, folder: Path) -> tuple[Categorical, ...]:
    """Number the ids of every categorical column, and write ``folder/ids/<column>.parquet`` (id int64, original_id).

    Ids of training come first, in order of the original id; those that only validation or test hold follow. A null in a
    feature is an id of its own, the last of its group, with a null ``original_id``.
    """
    (folder / "ids").mkdir()
    roles = {USER: "user", ITEM: "item"}
    names = (USER, ITEM, *columns.categorical)
    return tuple(encode_column(workspace, name, roles.get(name, "feature"), folder) for name in names)


def encode_column(workspace: Workspace, name: str, role: Role, folder: Path) -> Categorical:
    """Number the ids of one column of ``rows``, and write its file (see `encode_ids`)."""
    workspace.on_progress(f"encoding {name}")
    table = id_table(name)
    workspace.query(f"""
        CREATE TABLE {table} AS
        SELECT row_number() OVER (ORDER BY NOT seen, original_id NULLS LAST) - 1 AS id, original_id, seen
        FROM (SELECT {quoted(name)} AS original_id, bool_or({SPLIT} = 0) AS seen FROM rows GROUP BY ALL)""")
    ids = workspace.connection.sql(f"SELECT id, original_id FROM {table} ORDER BY id")
    write_table(ids, folder / "ids" / f"{name}.parquet")
    [(num_ids, num_seen)] = workspace.query(f"SELECT count(*), count(*) FILTER (WHERE seen) FROM {table}")
    return Categorical(name, num_ids=num_ids, num_seen=num_seen, role=role)


def id_table(column: str) -> str:
    """The name of a column's id table, as SQL."""
    return quoted(f"ids {column}")
