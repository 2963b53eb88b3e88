"""Checked columns -> blocks of rows, permuted -> `Batch`. Column-wise throughout: no Python loop over rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_pipeline.batch import Batch
from data_pipeline.schema import Schema
from data_pipeline.streaming.row_groups import ColumnArrays


@dataclass
class Rows:
    """n rows copied out of a block: a batch, or a piece of one that spans blocks.

    Attributes:
        ids: int64 ``[P, n]``: the P columns of one id per row, in schema order, as stored.
        sequences: for every sequence, in schema order: its values, and int64 ``[n]`` lengths.
        dense: float32 ``[n, D]``, standardized.
        labels: float32 ``[n]``.
    """

    ids: np.ndarray
    sequences: list[tuple[np.ndarray, np.ndarray]]
    dense: np.ndarray
    labels: np.ndarray


class Block:
    """Consecutive rows of a shard, in matrices that every fill reuses, so that a batch is one gather per matrix."""

    def __init__(self, schema: Schema, capacity: int):
        self._dense_columns = schema.dense
        self._ids = np.empty((sum(not c.sequence for c in schema.categorical), capacity), np.int64)
        self._dense = np.empty((capacity, len(schema.dense)), np.float32)
        self._labels = np.empty(capacity, np.float32)
        self._sequences: list[tuple[np.ndarray, np.ndarray]] = []  # values, [rows + 1] offsets
        self._order: np.ndarray | None = None
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def fill(self, parts: Iterable[ColumnArrays]) -> None:
        """Replace the rows; standardize dense ones in float64, since a mean may be large beside the deviation."""
        self._order, self._rows, sequences = None, 0, []
        for part in parts:
            at = slice(self._rows, self._rows + len(part))
            for row, ids in enumerate(part.ids):
                self._ids[row, at] = ids
            for column, (moments, values) in enumerate(zip(self._dense_columns, part.dense, strict=True)):
                self._dense[at, column] = (values.astype(np.float64) - moments.mean) / moments.std
            self._labels[at] = part.labels
            sequences.append(part.sequences)
            self._rows = at.stop
        self._sequences = [_concat_lists(pieces) for pieces in zip(*sequences, strict=True)]

    def shuffle(self, seed: int) -> None:
        # torch permutes four times as fast as numpy.random does.
        self._order = torch.randperm(self._rows, generator=torch.Generator().manual_seed(seed)).numpy()

    def take(self, start: int, stop: int) -> Rows:
        """Copies of the rows at places ``start .. stop-1`` of the block's order."""
        rows = np.arange(start, stop) if self._order is None else self._order[start:stop]
        return Rows(
            self._ids.take(rows, axis=1),
            [_take_lists(values, offsets, rows) for values, offsets in self._sequences],
            self._dense.take(rows, axis=0),
            self._labels.take(rows),
        )


def _concat_lists(pieces: tuple[tuple[np.ndarray, np.ndarray], ...]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.concatenate([np.diff(offsets) for _, offsets in pieces])
    return np.concatenate([values for values, _ in pieces]), np.append(0, np.cumsum(lengths))


def _take_lists(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lists of the given rows, one after the other, and their lengths."""
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    ends = np.cumsum(lengths)
    # Value j of the result comes from its list's start plus j minus the values of the lists before it.
    shift = np.repeat(starts - (ends - lengths), lengths)
    return values.take(shift + np.arange(len(shift))), lengths


def join(parts: list[Rows]) -> Rows:
    """The rows of all parts, in order."""
    if len(parts) == 1:
        return parts[0]
    return Rows(
        np.concatenate([part.ids for part in parts], axis=1),
        [
            tuple(map(np.concatenate, zip(*pieces, strict=True)))
            for pieces in zip(*(part.sequences for part in parts), strict=True)
        ],
        np.concatenate([part.dense for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )


def to_batch(part: Rows, schema: Schema, weight: float, stride: int) -> Batch:
    """Lay the ids out key-major, as a KeyedJaggedTensor has them: all rows of the first column, then of the second.

    Args:
        part: the rows.
        weight: see `Batch`.
        stride: of the ids, at least the number of rows; rows past them hold no ids.
    """
    rows, columns = len(part.labels), schema.categorical
    plain, sequences = iter(part.ids), iter(part.sequences)
    lengths = np.ones((len(columns), stride), np.int64)
    lengths[:, rows:] = 0
    ids = []
    for place, column in enumerate(columns):
        if column.sequence:
            column_ids, lengths[place, :rows] = next(sequences)
        else:
            column_ids = next(plain)
        ids.append(column_ids)
    sizes = [len(column_ids) for column_ids in ids]
    ends = np.cumsum(sizes).tolist()
    values = np.empty(ends[-1], np.int64)
    for column, column_ids, start, end in zip(columns, ids, [0, *ends[:-1]], ends, strict=True):
        # Ids that training never saw become the reserved row.
        np.minimum(column_ids, column.num_seen, out=values[start:end])
    item = columns.index(schema.entity("item"))
    return Batch(
        ids=KeyedJaggedTensor(
            [column.name for column in columns],
            torch.from_numpy(values),
            lengths=torch.from_numpy(lengths.reshape(-1)),
            stride=stride,
            length_per_key=sizes,
            offset_per_key=[0, *ends],
        ),
        dense=torch.from_numpy(part.dense),
        labels=torch.from_numpy(part.labels),
        users=torch.from_numpy(ids[columns.index(schema.entity("user"))]),
        items=torch.from_numpy(np.empty(0, np.int64) if columns[item].sequence else ids[item]),
        weight=torch.tensor(weight, dtype=torch.float32),
    )


def _reduce(batch: Batch) -> tuple[Any, ...]:
    """Send a batch between processes as bytes through the queue's pipe.

    torch would move each of its seven tensors to shared memory, a file descriptor apiece: ten times slower for a batch
    of 4,096 rows and two ids.
    """
    ids = batch.ids
    lengths = ids.lengths()
    arrays = [t.numpy() for t in (ids.values(), batch.dense, batch.labels, batch.users, batch.items, batch.weight)]
    shape = (ids.keys(), ids.stride(), ids.length_per_key(), ids.offset_per_key())
    return _rebuild, (shape, None if bool((lengths == 1).all()) else lengths.numpy(), *arrays)


def _rebuild(shape: tuple[Any, ...], lengths: np.ndarray | None, values: np.ndarray, *arrays: np.ndarray) -> Batch:
    keys, stride, length_per_key, offset_per_key = shape
    ids = KeyedJaggedTensor(
        keys,
        torch.from_numpy(values),
        lengths=torch.ones(len(values), dtype=torch.int64) if lengths is None else torch.from_numpy(lengths),
        stride=stride,
        length_per_key=length_per_key,
        offset_per_key=offset_per_key,
    )
    return Batch(ids, *(torch.from_numpy(array) for array in arrays))


ForkingPickler.register(Batch, _reduce)
