"""Matches the table rows of two prepared folders by the original ids that they stand for."""

from __future__ import annotations

import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.id_tables import ORIGINAL_ID, id_table_path
from data_pipeline.integrity import checked_file

_MEMORY = "2GB"  # of a join, which goes to disk beyond it
KIND = "kind"  # a column of ids/attributes.parquet: equal values of two kinds are two attributes


def match_rows(
    former: Path | str, folder: Path | str, table: str, former_seen: int, first: int, last: int
) -> np.ndarray:
    """Find the former row of the rows ``first … last-1`` of an id table.

    Ids are compared as text if their types differ: 17 and "17" are the same id. Null is an id like others. Memory
    depends on the rows requested; the join itself uses at most 2 GB and then the disk.

    Args:
        former: the prepared folder of the former rows.
        folder: the prepared folder of the rows.
        table: name of the id table, in both folders.
        former_seen: ids seen in the former training split, the only ones that had a row of their own.
        first, last: the rows.

    Returns:
        int64 ``[last - first]``; -1 for ids without a former row.

    Raises:
        DataError: an id table is missing, was altered, or has an original id twice.

    Example:
        >>> match_rows("data/yesterday", "data/today", "item_id", former_seen=3, first=0, last=4).tolist()
        [0, 2, -1, 1]
    """
    if last <= first:
        return np.empty(0, np.int64)
    paths = [_checked(root, table) for root in (folder, former)]
    columns = [pq.read_schema(path) for path in paths]
    as_text = len({str(column.field(ORIGINAL_ID).type) for column in columns}) > 1
    keys = [ORIGINAL_ID, *([KIND] if all(KIND in column.names for column in columns) else [])]
    cast = "::VARCHAR" if as_text else ""
    same = " AND ".join(f"new.{key}{cast} IS NOT DISTINCT FROM old.{key}{cast}" for key in keys)
    query = f"""
        SELECT new.id AS id, coalesce(old.id, -1) AS former
        FROM (SELECT * FROM read_parquet($new) WHERE id >= $first AND id < $last) new
        LEFT JOIN (SELECT * FROM read_parquet($old) WHERE id < $seen) old ON {same}"""
    values = {"new": str(paths[0]), "old": str(paths[1]), "first": first, "last": last, "seen": former_seen}
    found = np.full(last - first, -1, np.int64)
    matches = 0
    with tempfile.TemporaryDirectory() as scratch, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'; SET threads = 1")
        connection.execute("SET temp_directory = ?", [scratch])
        for batch in connection.sql(query, params=values).to_arrow_reader(1 << 16):
            found[batch["id"].to_numpy() - first] = batch["former"].to_numpy()
            matches += len(batch)
    if matches != last - first:
        raise DataError(
            f"{paths[0]} and {paths[1]}: {matches} matches of {last - first} ids: an original id occurs twice, or ids"
            " are missing. Prepare the data again"
        )
    return found


def _checked(folder: Path | str, table: str) -> Path:
    path = id_table_path(folder, table)
    if not path.is_file():
        raise DataError(f"{path}: no such file: rows are matched by the original ids in it. Prepare the data again")
    return checked_file(folder, f"{path.parent.name}/{path.name}")
