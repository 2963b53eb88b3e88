"""Counts rows of validation and test that another run may have trained on."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb

from data_pipeline.id_tables import ORIGINAL_ID, id_table_path
from data_pipeline.preparation.workspace import literal, quoted
from data_pipeline.schema import ENTITIES, INPUT, Schema

_MEMORY = "2GB"  # of the joins, which go to disk beyond it


def pairs_trained_before(
    former: Sequence[tuple[Path | str, Schema]], folder: Path | str, schema: Schema, split: str
) -> int | None:
    """Count pairs of user and item of a split that were in former training rows and are not in those of today.

    A model that starts from the former ones has seen these pairs, and a model trained on today's data only has not: the
    metrics of the split are then better than the truth. Ids are compared as text.

    Args:
        former: Prepared folders of the former runs, and their schemas.
        folder, schema: Prepared folder of today, and its schema.
        split: ``validation`` or ``test``.

    Returns:
        The number of distinct pairs; None where rows are sequences, which are not compared.

    Example:
        >>> old, new = Schema.load("data/yesterday"), Schema.load("data/today")
        >>> pairs_trained_before([("data/yesterday", old)], "data/today", new, "test")
        0
    """
    if any(INPUT in {column.name for column in each.categorical} for each in (schema, *(other for _, other in former))):
        return None
    if not schema.has_split(split):
        return 0
    today, trained = (_pairs(folder, schema, name) for name in (split, "train"))
    before = " UNION ".join(_pairs(*each, "train") for each in former)
    query = f"SELECT count(*) FROM (({today} INTERSECT ({before})) EXCEPT {trained})"
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
