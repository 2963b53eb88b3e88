"""Known categories of ids -> ``categories/<column>.parquet``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_pipeline.parquet_files import BATCH_ROWS, write_parquet
from data_pipeline.preparation.encode import id_table
from data_pipeline.preparation.workspace import Workspace, quoted
from data_pipeline.schema import TITLE


def write_categories(workspace: Workspace, categories: Mapping[str, str], folder: Path) -> None:
    """Write ``folder/categories/<column>.parquet``: id, original_id and the category columns, in order of the id.

    Ids without any category are left out, and so are ids that no row has. A column `TITLE` is no category.

    Args:
        workspace: Workspace that holds the id tables.
        categories: See `data_pipeline.preparation.read.Source`.
        folder: The prepared folder.
    """
    for column, known in categories.items():
        (folder / "categories").mkdir(exist_ok=True)
        kinds = [name for name, *_ in workspace.query(f"DESCRIBE {known}") if name != "original_id"]
        deciding = [kind for kind in kinds if kind != TITLE] or kinds
        table = quoted(f"categories of {column}")
        # as text on both sides: a file of films has text ids where the ratings, all of them numbers, became integers
        workspace.query(f"""
            CREATE TABLE {table} AS
            SELECT ids.id, ids.original_id, {", ".join(map(quoted, kinds))}
            FROM {id_table(column)} AS ids
            JOIN ({known}) AS known ON known.original_id::VARCHAR = ids.original_id::VARCHAR
            WHERE {" OR ".join(f"{quoted(kind)} IS NOT NULL" for kind in deciding)}""")
        rows = workspace.connection.sql(f"SELECT * FROM {table} ORDER BY id")
        write_parquet(rows.to_arrow_reader(BATCH_ROWS), folder / "categories" / f"{column}.parquet")
        ids, have = workspace.count(id_table(column)), workspace.count(table)
        workspace.on_progress(f"categories of {column} ({', '.join(kinds)}): known for {have:,} of {ids:,} ids")
