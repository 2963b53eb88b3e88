"""The users of a request: all, a list of original ids, or a file of them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cove_dist.errors import ConfigError
from cove_dist.inference.ids import IdTable
from cove_dist.inference.row_files import read_csv, require_file, settled
from cove_dist.tasks.unseen import rare_ids
from data_pipeline.errors import DataError
from data_pipeline.id_tables import checked_id_table, combined
from data_pipeline.preparation.csv_header import read_header
from data_pipeline.preparation.formats import is_parquet
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)


class Users(NamedTuple):
    """The requested users.

    Attributes:
        known: Distinct encoded ids of users seen in training, sorted.
        unknown: Original ids of unseen users.
    """

    known: np.ndarray
    unknown: pa.Array


def find_users(asked: str | list[int | str], unknown: str, data: str, schema: Schema) -> Users:
    """Find the users of ``all``, of a list of original ids, or of a file whose first column has them.

    Args:
        asked: ``all``, the list, or the path of the file.
        unknown: What to do with users that training did not see.
        data: Folder of the prepared data.
        schema: Its schema.

    Raises:
        ConfigError: A file cannot be read, there are no users, or users are unseen and ``unknown`` is ``error``.
        DataError: The ids of users are gone, or were altered.
    """
    column = schema.entity("user")
    if asked == "all":
        checked_id_table(data, column.table_name)
        if rare := rare_ids(data, column):
            logger.info("Left out %d users that are rarer in training than data.min_count", rare)
        return Users(np.arange(column.num_seen), pa.nulls(0))
    table = IdTable(data, column)
    wanted = read_column(Path(asked), table.of_text) if isinstance(asked, str) else pa.array(list(map(str, asked)))
    if len(wanted) == 0:
        raise ConfigError(f"users = {asked}: none")
    encoded = table.encode(wanted)
    if unknown == "error":
        table.require_known(
            encoded, wanted, "users", "unknown=skip, unknown=popular, or unknown=oov_row where the run trained it"
        )
    seen = table.known(encoded)
    return Users(np.unique(encoded[seen]), wanted.filter(pa.array(~seen)).unique())


def as_ids(users: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return unseen users in the type of the data's ids, so that all parts of the output have one type.

    Raises:
        ConfigError: An id cannot be one of the data's.
    """
    try:
        return users.cast(kind)
    except pa.ArrowInvalid as error:
        raise ConfigError(f"users: the ids of users in the data are of type {kind}: {error}; unknown=skip") from error


def read_column(path: Path, text: bool) -> pa.Array:
    """Read the first column of a Parquet file, a CSV file with a header line, or a plain .txt file without one.

    Args:
        path: The file.
        text: Whether the column is text even if it looks like numbers, so that 0439 stays 0439.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
    """
    require_file(path, "users", ", and neither all nor a list")
    try:
        if is_parquet(path):
            return combined(pq.read_table(path).column(0))
        header = path.suffix.lower() != ".txt"
        first = (read_header(path, [])[0] or [""])[0] if header else "f0"
        types = settled([path], {first: pa.string() if text else pa.int64()}, header)
        return combined(pa.Table.from_batches(read_csv(path, types, only=[first], header=header)).column(0))
    except (OSError, pa.ArrowException, DataError) as error:
        raise ConfigError(f"users = {path}: cannot be read as Parquet, CSV or text: {error}") from error
