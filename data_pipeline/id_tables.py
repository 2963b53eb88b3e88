"""Id tables of a prepared folder: which original id every encoded id stands for.

``ids/<table>.parquet`` has the columns ``id`` (int64, 0 .. ids-1, in order) and ``original_id``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.integrity import checked_file
from data_pipeline.streaming.order import slices

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


def checked_id_table(folder: Path | str, table: str) -> Path:
    """Return the file of an id table whose content is as it was prepared.

    Raises:
        DataError: There is no such file, or it was altered.
    """
    path = checked_file(folder, f"{FOLDER}/{table}.parquet")
    if not path.is_file():
        raise DataError(f"{path}: no such file. Restore it, or prepare the data again")
    return path


def read_original_ids(folder: Path | str, table: str) -> pa.Array:
    """Read all original ids of a table, in order of the encoded ids: entry ``i`` is the original id of ``i``.

    Raises:
        DataError: There is no such file, or it was altered.
    """
    return combined(pq.read_table(checked_id_table(folder, table), columns=[ORIGINAL_ID])[ORIGINAL_ID])


def read_original_block(folder: Path | str, table: str, first: int, last: int) -> pa.Array:
    """Read the original ids of the encoded ids ``first <= id < last``, as `read_original_ids`."""
    file = pq.ParquetFile(checked_id_table(folder, table))
    kind = file.schema_arrow.field(ORIGINAL_ID).type
    parts = [batch[ORIGINAL_ID] for batch in rows_between(file, first, last, [ORIGINAL_ID])]
    return combined(pa.chunked_array(parts, kind))


def original_id_type(folder: Path | str, table: str) -> pa.DataType:
    """Return the type of the original ids of a table as they are stored."""
    return pq.read_schema(checked_id_table(folder, table)).field(ORIGINAL_ID).type


def rows_between(
    file: pq.ParquetFile, first: int, last: int, columns: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """Yield rows ``first <= row < last`` of a file, one row group in memory at a time; only ``columns``, None: all."""
    sizes = np.array([file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)])
    for group, start, stop in slices(sizes, np.arange(len(sizes)), first, last):
        yield from file.read_row_group(group, columns=columns).slice(start, stop - start).to_batches()


def combined(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array; text of more than 2 GiB becomes ``large_string``."""
    return (column if _fits(column) else column.cast(pa.large_string())).combine_chunks()


def _fits(column: pa.ChunkedArray) -> bool:
    """Return whether the text of a column, if it has text, fits into one array of its type."""
    if not pa.types.is_string(column.type) or column.nbytes <= _MOST_TEXT:
        return True
    import pyarrow.compute as pc  # which training does not need

    return pc.sum(pc.binary_length(column)).as_py() <= _MOST_TEXT


def read_original_id(folder: Path | str, table: str, encoded: int) -> Any:
    """Read the original id of one encoded id, for messages."""
    ids = pq.read_table(id_table_path(folder, table), columns=[ORIGINAL_ID], filters=[("id", "=", encoded)])
    return ids[ORIGINAL_ID][0].as_py()
