"""The columns of rows other than user and item, in original values -> those that a model reads.

Shapes: ``n`` rows.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cove_dist.errors import ConfigError
from cove_dist.inference.ids import IdTables
from cove_dist.tasks.inference import NO_CONTEXT, ContextFeatures, Ragged
from data_pipeline.id_tables import combined
from data_pipeline.schema import Categorical, Schema

logger = logging.getLogger(__name__)


def encode_context(
    tables: IdTables, schema: Schema, required: Sequence[str], columns: Mapping[str, Any], rows: int, known: np.ndarray
) -> ContextFeatures:
    """Encode further columns of rows; unseen values get the out-of-vocabulary row.

    Args:
        tables: Ids of the prepared data.
        schema: Its schema.
        required: Names of the columns that the model reads.
        columns: Values ``[n]`` by column. A value of a column of lists is a list, or text as in the raw data; of a list
            that is longer than those of training the last entries are read, as in preparation.
        rows: Number of rows n.
        known: Which rows are scored, bool ``[n]``.

    Raises:
        ConfigError: A column is missing, has another length or values of another kind, or is not read by the model.
    """
    if unused := [name for name in columns if name not in required]:
        allowed = ", ".join(required) or "no further columns"
        raise ConfigError(f"columns: the model does not read {', '.join(unused)}; it reads {allowed}")
    if missing := [name for name in required if name not in columns]:
        raise ConfigError(f"columns: the model also reads {', '.join(missing)}; give them")
    if not required:
        return NO_CONTEXT
    categorical = {column.name: column for column in schema.categorical}
    dense_columns = {column.name: column for column in schema.dense}
    ids: dict[str, np.ndarray] = {}
    dense: dict[str, np.ndarray] = {}
    lists: dict[str, Ragged] = {}
    for name in required:
        values = columns[name]
        if len(values) != rows:
            raise ConfigError(f"columns: {name} has {len(values)} values, for {rows} rows")
        if name not in categorical:
            try:
                dense[name] = np.asarray(values, dtype=np.float32)
            except (TypeError, ValueError) as error:
                raise ConfigError(f"columns: {name} needs a number for every row: {error}") from error
            if not dense_columns[name].valid(dense[name][known]).all():
                raise ConfigError(f"columns: {name}: a value is missing, not finite, or outside of its logarithm")
        elif categorical[name].sequence:
            lists[name] = _encoded_lists(tables, schema, categorical[name], values)
        else:
            ids[name] = _encoded(tables, categorical[name], values)
    return ContextFeatures(ids, dense, lists).take(np.flatnonzero(known))


def _encoded(tables: IdTables, column: Categorical, values: Iterable[Any]) -> np.ndarray:
    """Return the rows of the table of values ``[n]``."""
    encoded = tables.of(column).rows(values)
    unseen = encoded < 0
    if unseen.any():
        logger.info("%s: %d values unknown to training", column.name, int(unseen.sum()))
    return np.where(unseen, column.num_seen, encoded)


def _encoded_lists(tables: IdTables, schema: Schema, column: Categorical, values: Iterable[Any]) -> Ragged:
    """Return the rows of the table of the lists' last entries, as many as the longest list of the data has."""
    flat, lengths = _flattened(values, column.name, schema.list_separator)
    if isinstance(flat, list) and (nested := [entry for entry in flat if isinstance(entry, list | tuple | dict)]):
        raise ConfigError(
            f"columns: {column.name}: the entry {nested[0]!r} is no id; give a list of ids for every row (to recommend,"
            " one list for all rows)"
        )
    ends = np.cumsum(lengths)
    if (empty := _first_empty(flat)) is not None:
        row = int(np.searchsorted(ends, empty, side="right"))
        raise ConfigError(
            f"columns: {column.name}: row {row + 1} has a list with an empty entry, which preparation refuses; leave"
            " this entry out"
        )
    last = np.arange(len(flat)) >= np.repeat(ends - column.max_length, lengths)
    kept = flat.filter(pa.array(last)) if isinstance(flat, pa.Array) else list(compress(flat, last))
    encoded = _encoded(tables, column, kept) if len(kept) else np.empty(0, np.int64)
    return Ragged(encoded, np.minimum(lengths, column.max_length))


def _flattened(values: Iterable[Any], name: str, separator: str | None) -> tuple[pa.Array | list[Any], np.ndarray]:
    """Return the entries of all lists, in the type that they have in Arrow, and the number of entries of each list."""
    if isinstance(values, pa.ChunkedArray):
        values = combined(values)
    if isinstance(values, pa.Array) and _is_list(values.type):
        lengths = pc.list_value_length(values).fill_null(0).to_numpy().astype(np.int64)
        flat = values.flatten()
        return flat.to_pylist() if pa.types.is_nested(flat.type) else flat, lengths
    given = values.to_pylist() if isinstance(values, pa.Array) else values
    lists = [_entries(value, name, separator) for value in given]
    return [entry for each in lists for entry in each], np.array([len(each) for each in lists], np.int64)


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _first_empty(flat: pa.Array | list[Any]) -> int | None:
    """Return the index of the first entry that is null or empty text."""
    if isinstance(flat, list):
        return next((index for index, entry in enumerate(flat) if entry is None or entry == ""), None)
    empty = flat.is_null()
    if not pa.types.is_primitive(flat.type):
        empty = pc.or_kleene(empty, pc.equal(flat.cast(pa.string()), ""))
    index = pc.index(empty, True).as_py()
    return None if index < 0 else index


def _entries(value: Any, name: str, separator: str | None) -> list[Any]:
    """Return the entries of one list: a sequence, or text between separators or of a JSON list; None has none.

    Raises:
        ConfigError: The value is no list.
    """
    if value is None:
        return []
    if isinstance(value, str):
        text = value.strip()
        try:
            found = json.loads(text) if text.startswith("[") else None
        except ValueError:
            found = None
        if isinstance(found, list):
            return found
        return [entry.strip() for entry in text.split(separator)] if text else []
    if isinstance(value, int):  # of a CSV file in which every list has one entry
        return [value]
    if isinstance(value, Iterable):
        return list(value)
    raise ConfigError(
        f"columns: {name}: {value!r} is no list; give a list of ids for every row, or text with {separator!r} between"
        " ids"
    )
