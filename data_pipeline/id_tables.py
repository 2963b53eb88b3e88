"""Id tables of a prepared folder: which original id every encoded id stands for.

``ids/<table>.parquet`` has the columns ``id`` (int64, 0 .. ids-1, in order) and ``original_id``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.integrity import checked_file

FOLDER = "ids"
ORIGINAL_ID = "original_id"


def id_table_path(folder: Path | str, table: str) -> Path:
    """Return the file of an id table.

    Args:
        folder: The prepared folder.
        table: Name of the id table, as `data_pipeline.schema.Categorical.table_name`.
    """
    return Path(folder) / FOLDER / f"{table}.parquet"


def read_original_ids(folder: Path | str, table: str) -> pa.Array:
    """Read all original ids of a table, in order of the encoded ids: entry ``i`` is the original id of ``i``.

    Raises:
        DataError: There is no such file, or it was altered.
    """
    path = checked_file(folder, f"{FOLDER}/{table}.parquet")
    if not path.is_file():
        raise DataError(f"{path}: no such file. Restore it, or prepare the data again")
    return pq.read_table(path, columns=[ORIGINAL_ID])[ORIGINAL_ID].combine_chunks()


def read_original_id(folder: Path | str, table: str, encoded: int) -> Any:
    """Read the original id of one encoded id, for messages."""
    ids = pq.read_table(id_table_path(folder, table), columns=[ORIGINAL_ID], filters=[("id", "=", encoded)])
    return ids[ORIGINAL_ID][0].as_py()
