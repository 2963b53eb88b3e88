"""Known categories of ids -> ``categories/<column>.parquet``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_pipeline.errors import DataError
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
        ids, key = id_table(column), "known.original_id::VARCHAR"
        if {kind for name, kind, *_ in workspace.query(f"DESCRIBE {ids}") if name == "original_id"} == {"BIGINT"}:
            key = f"regexp_replace({key}, '^(-?[0-9]+)\\.0*$', '\\1')"  # as pandas writes ids: 1.0
        # as text on both sides: a file of films has text ids where the ratings, all of them numbers, became integers
        workspace.query(f"""
            CREATE TABLE {table} AS
            SELECT ids.id, ids.original_id, {", ".join(map(quoted, kinds))}
            FROM {ids} AS ids
            JOIN ({known}) AS known ON {key} = ids.original_id::VARCHAR
            WHERE {" OR ".join(f"{quoted(kind)} IS NOT NULL" for kind in deciding)}""")
        _check(workspace, column, known, table)
        rows = workspace.connection.sql(f"SELECT * FROM {table} ORDER BY id")
        write_parquet(rows.to_arrow_reader(BATCH_ROWS), folder / "categories" / f"{column}.parquet")
        count, have = workspace.count(ids), workspace.count(table)
        workspace.on_progress(f"categories of {column} ({', '.join(kinds)}): known for {have:,} of {count:,} ids")


def _check(workspace: Workspace, column: str, known: str, table: str) -> None:
    """Warn where no id has a category, and refuse an id that has several rows of them.

    Raises:
        DataError: With the id.
    """
    repeated = workspace.query(f"SELECT original_id FROM {table} GROUP BY 1 HAVING count(*) > 1 ORDER BY 1 LIMIT 1")
    if repeated:
        raise DataError(
            f"categories of {column}: {repeated[0][0]} is written in two ways, such as 1 and 1.0. Write it in one way,"
            " in one row"
        )
    if not workspace.count(table):
        [(given,)] = workspace.query(f"SELECT min(original_id::VARCHAR) FROM ({known})")
        [(expected,)] = workspace.query(f"SELECT min(original_id)::VARCHAR FROM {id_table(column)}")
        workspace.warn(
            f"categories of {column}: no id of the rows has any. Ids of the rows are such as {expected!r}, those with"
            f" categories such as {given!r}: write them in one way, in the column that has the name of the rows' column"
        )
