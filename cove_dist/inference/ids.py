"""Original ids and the encoded ids of a prepared folder.

Shapes: ``n`` ids.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from cove_dist.errors import ConfigError
from cove_dist.inference.id_lookup import IdLookup
from data_pipeline.id_tables import combined, read_original_ids
from data_pipeline.id_texts import digits_of, texts_of
from data_pipeline.rare_ids import buckets_of
from data_pipeline.schema import Categorical

_SHOWN = 5  # unknown ids shown in a message
_WHOLE = r"\A(0|-?[1-9][0-9]{0,19})\z"  # whole numbers without a leading zero


class IdTable:
    """The ids of one column.

    Args:
        folder: Folder of the prepared data.
        column: Column of the ids.
        lookup: The original ids of the column's table, if they were read already.

    Attributes:
        original: ``[num_ids]``, the original id of every encoded id.

    Example:
        >>> table = IdTable("data/movielens_100k", schema.entity("user"))
        >>> table.encode([17, "no such user"])
        array([16, -1])
    """

    def __init__(self, folder: Path | str, column: Categorical, lookup: IdLookup | None = None) -> None:
        self.column = column
        self._lookup = lookup or IdLookup(read_original_ids(folder, column.table_name))
        self.original: pa.Array = self._lookup.ids

    @property
    def of_text(self) -> bool:
        """Whether the ids are text, which may look like numbers."""
        return pa.types.is_string(self.original.type) or pa.types.is_large_string(self.original.type)

    @property
    def type_in_files(self) -> pa.DataType:
        """The type of the ids in CSV files, which do not say it."""
        return pa.string() if self.of_text else pa.int64()

    def encode(self, values: Iterable[Any] | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the encoded ids int64 ``[n]`` of original ids; -1 for ids that are not in the data.

        Ids are compared as text if their types differ: 17 and "17" are the same id. Whole numbers in floating point are
        the ids with and without a fraction: 17.0 is "17.0" where the data have it, or else "17".
        """
        wanted = self._given(values)
        if len(wanted) == 0:
            return np.empty(0, np.int64)
        if self.column.bins is not None:
            wanted = pa.array(self.column.bins.of(_numbers(wanted, self.column.name)))
        kind = self.original.type
        if wanted.type == kind:
            return self._lookup.find(wanted)
        if pa.types.is_integer(kind):
            return self._find_whole(digits_of(wanted))
        if not self.of_text:
            return self._lookup.find_text(wanted.cast(pa.string()))
        first, then = (texts_of, digits_of) if self.column.role == "feature" else (digits_of, texts_of)
        found = self._lookup.find(first(wanted).cast(kind))
        if _may_be_whole(wanted.type) and (missing := found < 0).any():
            found[missing] = self._lookup.find(then(wanted.filter(pa.array(missing))).cast(kind))
        return found

    def _given(self, values: Iterable[Any] | pa.Array | pa.ChunkedArray) -> pa.Array:
        """Return ids as an array; of users and items, bytes are text in UTF-8, as prepared ids are never bytes."""
        wanted = as_array(values)
        if self.column.role == "feature" or not _is_binary(wanted.type):
            return wanted
        try:
            return wanted.cast(pa.large_binary()).cast(pa.large_string())
        except pa.ArrowInvalid:  # some are not UTF-8, and so unknown
            return pa.array([None if each is None else each.decode(errors="replace") for each in wanted.to_pylist()])

    def _find_whole(self, digits: pa.Array) -> np.ndarray:
        """Return the encoded ids of texts ``[n]``, where the original ids are whole numbers."""
        other = pc.invert(pc.match_substring_regex(digits, _WHOLE)).fill_null(False)  # null is an id like others
        with suppress(pa.ArrowInvalid):  # a number is beyond the type
            numbers = pc.if_else(other, pa.scalar(None, digits.type), digits).cast(self.original.type)
            return np.where(other.to_numpy(zero_copy_only=False), -1, self._lookup.find(numbers))
        return self._lookup.find_text(digits)

    def rows(self, values: Iterable[Any] | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Return the table rows int64 ``[n]`` of original ids: of unseen ids those of their hash buckets, else -1."""
        wanted = self._given(values)
        encoded = self.encode(wanted)
        unseen = ~self.known(encoded)
        rare = encoded[unseen]
        encoded[unseen] = -1
        if self.column.buckets and unseen.any():
            given = self._hashed(wanted.filter(pa.array(unseen)))
            stored = self.original.take(pa.array(np.maximum(rare, 0))).cast(given.type)
            texts = pc.if_else(pa.array(rare >= 0), stored, given).to_pylist()
            encoded[unseen] = self.column.num_seen + buckets_of(texts, self.column.buckets)
        return encoded

    def _hashed(self, wanted: pa.Array) -> pa.Array:
        """Return the texts ``[n]`` by which preparation would hash ids: users and items in numbers are whole."""
        whole = self.column.role != "feature" and _may_be_whole(wanted.type)
        return digits_of(wanted) if whole or pa.types.is_integer(self.original.type) else texts_of(wanted)

    def known(self, encoded: np.ndarray) -> np.ndarray:
        """Return which encoded ids ``[n]`` were seen in training: bool ``[n]``."""
        return (encoded >= 0) & (encoded < self.column.num_seen)

    def require_known(self, encoded: np.ndarray, values: Any, what: str, allowed: str) -> None:
        """Raise an error for unseen ids.

        Args:
            encoded: As returned by `encode`.
            values: The same ids as given.
            what: Argument or column, for the message.
            allowed: Alternatives of the caller for unknown ids, for the message.

        Raises:
            ConfigError: An id is unknown.
        """
        unknown = ~self.known(encoded)
        if unknown.any():
            first = as_array(values).filter(pa.array(unknown)).unique()[:_SHOWN].to_pylist()
            raise ConfigError(
                f"{what}: {int(unknown.sum())} of {len(encoded)} ids were not in the training split, or are too rare"
                f" there, such as {', '.join(map(repr, first))}; a model knows nothing of them. Allowed: {allowed}"
            )

    def decode(self, encoded: np.ndarray) -> pa.Array:
        """Return the original ids of encoded ids ``[n]``."""
        return self.original.take(pa.array(encoded))


class IdTables:
    """The ids of the columns of a prepared folder; every file is read once, and columns that share it share its ids.

    Args:
        folder: Folder of the prepared data.
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = folder
        self._read: dict[str, IdLookup] = {}

    def of(self, column: Categorical) -> IdTable:
        """Return the ids of a column.

        Raises:
            DataError: The file is gone, or was altered.
        """
        name = column.table_name
        if name not in self._read:
            self._read[name] = IdLookup(read_original_ids(self._folder, name))
        return IdTable(self._folder, column, self._read[name])


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _may_be_whole(kind: pa.DataType) -> bool:
    """Return whether numbers of a type have a fraction, which may be 0."""
    return pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _numbers(values: pa.Array, name: str) -> np.ndarray:
    try:
        return values.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)  # null becomes nan
    except pa.ArrowInvalid as error:
        raise ConfigError(f"{name}: not a number: {error}") from error


def as_array(values: Iterable[Any] | pa.Array | pa.ChunkedArray, what: str = "ids") -> pa.Array:
    """Return ids as an array; numbers and text together become text, and so do numbers beyond int64.

    Args:
        values: Ids ``[n]``: an iterable, or an array of Arrow, NumPy, pandas or torch.
        what: Argument or column, for the message.

    Raises:
        ConfigError: They are a single id, or have more than one dimension.

    Example:
        >>> as_array([17, "18"]).to_pylist(), as_array(np.array([17, 18])).to_pylist()
        (['17', '18'], [17, 18])
    """
    if isinstance(values, pa.ChunkedArray):
        values = combined(values)
    elif isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    elif hasattr(values, "__array__") and not isinstance(values, pa.Array):
        values = np.asarray(values)
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise ConfigError(f"{what} = {values!r}: give a list of ids, as [{values!r}]")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ConfigError(f"{what}: an array of shape {list(values.shape)}; give ids of shape [n]")
    found = values if isinstance(values, pa.Array) else _array_of(values)
    if pa.types.is_dictionary(found.type):
        found = found.dictionary_decode()
    if pa.types.is_nested(found.type):
        raise ConfigError(f"{what}: of type {found.type}; ids are numbers or text")
    return found


def _array_of(values: Iterable[Any]) -> pa.Array:
    given = values if isinstance(values, np.ndarray) and values.dtype != object else list(values)
    try:
        return pa.array(given)
    except (pa.ArrowException, OverflowError):  # numbers and text, numbers beyond int64, tensors of one number
        plain = [value.item() if isinstance(value, torch.Tensor | np.generic) else value for value in given]
        return pa.array([None if value is None else str(value) for value in plain])
