"""Counts rows of validation and test that another run may have trained on."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb

from data_pipeline.id_tables import ORIGINAL_ID, id_table_path
from data_pipeline.preparation.workspace import literal, quoted
from data_pipeline.schema import ENTITIES, INPUT, Entity, Schema

logger = logging.getLogger(__name__)

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
    logger.info("Looking for the user-item pairs of the %s split in the training rows of former runs", split)
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = 1")
        connection.execute("SET temp_directory = ?", [scratch])
        connection.execute(f"CREATE TEMP TABLE pairs AS {_pairs(folder, schema, split)}")
        before = " UNION ".join(_trained(connection, f"former_{n}", *each) for n, each in enumerate(former))
        connection.execute(f"CREATE OR REPLACE TEMP TABLE pairs AS {before}")
        today = _trained(connection, "today", folder, schema)
        [[count]] = connection.sql(f"SELECT (SELECT count(*) FROM pairs) - (SELECT count(*) FROM ({today}))").fetchall()
    return int(count)


def _pairs(folder: Path | str, schema: Schema, split: str) -> str:
    """Return the query of the distinct pairs of original ids of a split, as text."""
    texts = ", ".join(f"{role}_ids.{ORIGINAL_ID}::VARCHAR AS {role}_text" for role in ENTITIES)
    joins = " ".join(
        f"JOIN {_ids(folder, schema, role)} {role}_ids ON rows.{_column(schema, role)} = {role}_ids.id"
        for role in ENTITIES
    )
    return f"SELECT DISTINCT {texts} FROM {_rows(folder, schema, split)} rows {joins}"


def _trained(connection: duckdb.DuckDBPyConnection, name: str, folder: Path | str, schema: Schema) -> str:
    """Return the query of those of the table ``pairs`` that training rows hold.

    The training rows are compared with the encoded ids of the pairs, kept in a table called ``name``, so the
    query needs memory for the pairs only, whatever the number of training rows.
    """
    ids = ", ".join(f"{role}_ids.id AS {role}_id" for role in ENTITIES)
    joins = " ".join(
        f"JOIN {_ids(folder, schema, role)} {role}_ids ON {role}_ids.{ORIGINAL_ID}::VARCHAR = pairs.{role}_text"
        for role in ENTITIES
    )
    connection.execute(f"CREATE TEMP TABLE {name} AS SELECT pairs.*, {ids} FROM pairs {joins}")
    same = " AND ".join(f"rows.{_column(schema, role)} = {name}.{role}_id" for role in ENTITIES)
    texts = ", ".join(f"{name}.{role}_text" for role in ENTITIES)
    return f"SELECT DISTINCT {texts} FROM {_rows(folder, schema, 'train')} rows JOIN {name} ON {same}"


def _rows(folder: Path | str, schema: Schema, split: str) -> str:
    files = ", ".join(literal(str(Path(folder) / file)) for file in schema.splits[split].files)
    return f"read_parquet([{files}])"


def _ids(folder: Path | str, schema: Schema, role: Entity) -> str:
    return f"read_parquet({literal(str(id_table_path(folder, schema.entity(role).table_name)))})"


def _column(schema: Schema, role: Entity) -> str:
    return quoted(schema.entity(role).name)
