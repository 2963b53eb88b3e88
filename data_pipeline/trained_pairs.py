"""Counts rows of validation and test that another run may have trained on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb

from data_pipeline.id_tables import ORIGINAL_ID, id_table_path
from data_pipeline.preparation.workspace import literal, quoted
from data_pipeline.schema import ENTITIES, INPUT, Schema

_MEMORY = "2GB"  # of the joins, which go to disk beyond it


def pairs_trained_before(
    former: Path | str, former_schema: Schema, folder: Path | str, schema: Schema, split: str
) -> int:
    """Count pairs of user and item of a split that were in former training rows and are not in those of today.

    A model that starts from the former one has seen these pairs, and a model trained on today's data alone has not: the
    metrics of the split are then better than the truth. Ids are compared as text.

    Args:
        former, former_schema: Prepared folder of the former run, and its schema.
        folder, schema: Prepared folder of today, and its schema.
        split: ``validation`` or ``test``.

    Returns:
        The number of distinct pairs; 0 where rows are sequences, which have no pairs.

    Example:
        >>> old, new = Schema.load("data/yesterday"), Schema.load("data/today")
        >>> pairs_trained_before("data/yesterday", old, "data/today", new, "test")
        0
    """
    if not schema.has_split(split) or any(INPUT in {c.name for c in s.categorical} for s in (schema, former_schema)):
        return 0
    parts = [(folder, schema, split), (former, former_schema, "train"), (folder, schema, "train")]
    today, before, trained = (_pairs(*part) for part in parts)
    query = f"SELECT count(*) FROM (({today} INTERSECT {before}) EXCEPT {trained})"
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = 1")
        connection.execute("SET temp_directory = ?", [scratch])
        [[count]] = connection.sql(query).fetchall()
    return int(count)


def _pairs(folder: Path | str, schema: Schema, split: str) -> str:
    """Return the query of the distinct pairs of original ids of a split, as text."""
    columns = {role: schema.entity(role) for role in ENTITIES}
    files = ", ".join(literal(str(Path(folder) / file)) for file in schema.splits[split].files)
    ids = {
        role: f"read_parquet({literal(str(id_table_path(folder, column.table_name)))})"
        for role, column in columns.items()
    }
    chosen = ", ".join(f"{role}_ids.{ORIGINAL_ID}::VARCHAR" for role in ENTITIES)
    joins = " ".join(
        f"JOIN {ids[role]} {role}_ids ON rows.{quoted(column.name)} = {role}_ids.id" for role, column in columns.items()
    )
    return f"SELECT DISTINCT {chosen} FROM read_parquet([{files}]) rows {joins}"
