"""Ids of earlier data that keep their table rows in data in which they have no training row.

``data.keep_ids`` names a prepared folder. Its ids of training are ids of the new data as well, with a row in every
table, so that a run that starts from one on the earlier data (``warm_start``) takes over their rows.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.id_tables import id_table_path
from data_pipeline.integrity import checked_file
from data_pipeline.preparation.workspace import Workspace, scan_path
from data_pipeline.schema import REQUEST, Schema


def keeps_text(workspace: Workspace, name: str) -> bool:
    """Return whether there are ids to keep of one id table, and they are text: numbers in text files are then text too.

    Raises:
        DataError: The id table was altered.
    """
    folder = workspace.keep_ids
    if folder is None or name == REQUEST or not id_table_path(folder, name).is_file():
        return False
    path = checked_file(folder, id_table_path("", name).as_posix())
    workspace.reads(path)
    return not pa.types.is_integer(pq.read_schema(path).field("original_id").type)


def kept_ids(workspace: Workspace, name: str, here: str) -> list[str]:
    """Return the SQL of the ids to keep of one id table, of the columns and types of ``here``; empty without any.

    Args:
        workspace: Workspace with ``keep_ids``.
        name: Name of the id table. Requests, which no model has rows of, are not kept.
        here: SQL of the ids of the new data: original_id, __seen, __rows, __kept.

    Raises:
        DataError: The folder has no such column, or ids of another kind.
    """
    folder = workspace.keep_ids
    if folder is None or name == REQUEST:
        return []
    workspace.reads(folder / "schema.json")
    former = {column.table_name: column.num_seen for column in Schema.load(folder).categorical}
    if name not in former:
        raise DataError(
            f"data.keep_ids = {folder}: has no ids of {name}; its columns of ids: {', '.join(former)}. Prepare both"
            " data with the same columns"
        )
    path = checked_file(folder, id_table_path("", name).as_posix())
    workspace.reads(path)
    source = f"SELECT original_id FROM read_parquet({scan_path(path)}) WHERE id < {former[name]}"
    [(kind, *_)] = workspace.query(f"SELECT column_type FROM (DESCRIBE {here}) WHERE column_name = 'original_id'")
    wrong = workspace.query(
        f"SELECT original_id::VARCHAR FROM ({source})"
        f" WHERE original_id IS NOT NULL"
        f" AND TRY_CAST(original_id AS {kind})::VARCHAR IS DISTINCT FROM original_id::VARCHAR LIMIT 1"
    )
    if wrong:
        raise DataError(
            f"data.keep_ids = {folder}: {name} has the id {wrong[0][0]!r} there, which is no {kind} as the ids of the"
            " new data are. Prepare both data with ids of one kind"
        )
    return [f"SELECT original_id::{kind}, false, 0, true FROM ({source})"]
