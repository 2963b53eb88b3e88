"""Rare ids: table rows that ids without a row of their own share, by hash buckets.

The bucket of an id is ``h % buckets``, where h is the number in the last eight of the 16 bytes of the MD5 (RFC 1321)
of the id as UTF-8 text, the lowest byte first. Whole numbers are written in decimal digits, and null is the empty text.
The bucket depends on nothing else, so an unknown id has the one that it would have had in training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.id_tables import rows_between
from data_pipeline.integrity import checked_file
from data_pipeline.schema import Categorical

ROW = "row"  # column (int64) of an id table with hash buckets: the table row of each id


def buckets_of(texts: Iterable[str | None], buckets: int) -> np.ndarray:
    """Return the hash buckets of ids, int64 ``[n]``.

    Args:
        texts: The ids as text.
        buckets: Number of buckets.

    Example:
        >>> buckets_of(["17", "a new user"], 1000).tolist()
        [639, 519]
    """
    numbers = (_hash(text or "") % buckets for text in texts)
    return np.fromiter(numbers, np.int64)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode(), usedforsecurity=False).digest()[8:], "little")


class TableRows:
    """Maps stored ids of a column to rows of its table.

    Args:
        column: The column.
        of_unseen: Of a column with hash buckets: the row of each id from ``num_seen`` on, int64.
    """

    def __init__(self, column: Categorical, of_unseen: np.ndarray | None = None) -> None:
        self._num_seen, self._of_unseen = column.num_seen, of_unseen

    @classmethod
    def load(cls, folder: Path | str, column: Categorical) -> TableRows:
        """Read the rows of ids in hash buckets, if the column has some.

        Raises:
            DataError: The id table does not have them.
        """
        if not column.buckets:
            return cls(column)
        path = checked_file(folder, f"ids/{column.table_name}.parquet")
        file = pq.ParquetFile(path)
        kind = file.schema_arrow.field(ROW).type
        unseen = [batch[ROW] for batch in rows_between(file, column.num_seen, file.metadata.num_rows, [ROW])]
        rows = pa.chunked_array(unseen, kind).to_numpy()
        if len(rows) != column.num_ids - column.num_seen or (len(rows) and rows.max() >= column.num_rows):
            raise DataError(f"{path}: the rows of rare ids do not fit schema.json. Prepare the data again")
        return cls(column, rows)

    def __call__(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows of ids, int64 of any shape; all unseen ids share one row unless there are buckets."""
        if self._of_unseen is None or not len(self._of_unseen):
            return np.minimum(ids, self._num_seen)
        return np.where(ids < self._num_seen, ids, self._of_unseen[np.maximum(ids - self._num_seen, 0)])
