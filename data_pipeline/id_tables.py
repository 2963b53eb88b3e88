"""Id tables of a prepared folder: which original id every encoded id stands for.

``ids/<table>.parquet`` has the columns ``id`` (int64, 0 .. ids-1, in order) and ``original_id``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.integrity import checked_file

FOLDER = "ids"
ORIGINAL_ID = "original_id"
_MOST_TEXT = 2**31 - 1  # bytes of text in one array of type string, whose offsets are int32


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
    return combined(pq.read_table(path, columns=[ORIGINAL_ID])[ORIGINAL_ID])


def combined(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; text of more than 2 GiB becomes ``large_string``."""
    return (column if _fits(column) else column.cast(pa.large_string())).combine_chunks()


def _fits(column: pa.ChunkedArray) -> bool:
    """Return whether the text of a column, if it has text, fits into one array of its type."""
    if not pa.types.is_string(column.type) or column.nbytes <= _MOST_TEXT:
        return True
    return pc.sum(pc.binary_length(column)).as_py() <= _MOST_TEXT


def read_original_id(folder: Path | str, table: str, encoded: int) -> Any:
    """Read the original id of one encoded id, for messages."""
    ids = pq.read_table(id_table_path(folder, table), columns=[ORIGINAL_ID], filters=[("id", "=", encoded)])
    return ids[ORIGINAL_ID][0].as_py()
