"""Checked columns -> blocks of rows, in any order -> `Batch`. Column-wise throughout: no Python loop over rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_pipeline.batch import Batch
from data_pipeline.rare_ids import TableRows
from data_pipeline.schema import ENTITIES, Schema
from data_pipeline.streaming.columns import ColumnArrays


@dataclass
class Rows:
    """n rows of a block: those of a batch.

    Attributes:
        ids: int64 ``[P, n]``: the P columns of one id per row, in schema order, as stored.
        sequences: For every column of lists, in schema order: its values, and int64 ``[n]`` lengths.
        dense: float32 ``[n, D]``, standardized.
        labels: float32 ``[n]``, or ``[n, T]`` of several labels.
        unseen: Whether `ids` may have unseen ids.
        weights: float32 ``[n]``; None where rows have none.
    """

    ids: np.ndarray
    sequences: list[tuple[np.ndarray, np.ndarray]]
    dense: np.ndarray
    labels: np.ndarray
    unseen: bool = True
    weights: np.ndarray | None = None


class Block:
    """Rows of consecutive steps in matrices, in the order of the steps, so that a batch is a slice of every matrix.

    Call `fill` for every lane, in any order and from any thread; then `arrange`; then `take`.

    Args:
        schema: Schema of the columns.
        lanes: The number of lanes.
        rows: The number of rows.
    """

    def __init__(self, schema: Schema, lanes: int, rows: int) -> None:
        self._schema, self._rows = schema, rows
        self._ids = np.empty((sum(not c.sequence for c in schema.categorical), rows + 1), np.int64)
        self._dense = np.empty((rows + 1, len(schema.dense)), np.float32)
        self._labels = np.empty((rows + 1, len(schema.learned)) if schema.learned else rows + 1, np.float32)
        self._weights = None if schema.weight is None else np.empty(rows + 1, np.float32)
        self._unseen = False
        self._lists: list[list[list[tuple[np.ndarray, np.ndarray]]]]  # [lane][part][column]
        self._lists = [[] for _ in range(lanes)]
        self._targets = [np.empty(0, np.int64)] * lanes
        self._sequences: list[tuple[np.ndarray, np.ndarray]] = []  # values, offsets of the rows as they were read
        self._order: np.ndarray | None = None  # their order in the block

    def fill(self, lane: int, parts: Iterable[ColumnArrays], target: np.ndarray | None) -> None:
        """Write the rows of a lane. Dense columns are transformed and standardized (see `data_pipeline.dense`).

        Args:
            lane: Index of the lane.
            parts: Its rows.
            target: int64, the index in the block of each row, where the number of rows of the block drops a row; None:
                the rows are those of the block.
        """
        start = 0
        for part in parts:
            stop = start + len(part)
            at = slice(start, stop) if target is None else target[start:stop]
            for row, ids in zip(self._ids, part.ids, strict=True):
                row[at] = ids
            for number, (column, values) in enumerate(zip(self._schema.dense, part.dense, strict=True)):
                self._dense[at, number] = column.apply(values)
            self._labels[at] = part.labels
            if self._weights is not None:
                self._weights[at] = part.weights
            self._unseen = self._unseen or part.unseen
            self._lists[lane].append(part.sequences)
            start = stop
        if target is not None:
            self._targets[lane] = target

    def arrange(self) -> None:
        """Join the lists of all lanes."""
        parts = [part for lane in self._lists for part in lane]
        self._sequences = [_concat_lists(pieces) for pieces in zip(*parts, strict=True)]
        self._lists = []
        targets = np.concatenate(self._targets)
        if self._sequences and len(targets):
            self._order = np.empty(self._rows + 1, np.int64)
            self._order[targets] = np.arange(len(targets))

    def take(self, start: int, stop: int) -> Rows:
        """Return the rows ``start .. stop-1`` of the block: views, except of lists that were read in another order."""
        at = slice(start, stop)
        if self._order is None:
            lists = [_cut_lists(values, offsets[start : stop + 1]) for values, offsets in self._sequences]
        else:
            lists = [_take_lists(values, offsets, self._order[at]) for values, offsets in self._sequences]
        weights = None if self._weights is None else self._weights[at]
        return Rows(self._ids[:, at], lists, self._dense[at], self._labels[at], self._unseen, weights)


def _cut_lists(values: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lists between the offsets, concatenated, and their lengths."""
    return values[offsets[0] : offsets[-1]], np.diff(offsets)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return ``starts[i], starts[i] + 1, …``, ``lengths[i]`` of them, for every i: int64 ``[sum of lengths]``."""
    shifts = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    shifts += np.arange(len(shifts))
    return shifts


def _concat_lists(pieces: tuple[tuple[np.ndarray, np.ndarray], ...]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.concatenate([np.diff(offsets) for _, offsets in pieces])
    return np.concatenate([values for values, _ in pieces]), np.append(0, np.cumsum(lengths))


def _take_lists(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lists of the rows, concatenated, and their lengths."""
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    return values.take(ranges(starts, lengths)), lengths


class BatchLayout:
    """Makes a `Batch` of rows. Its ids are key-major, as in a KeyedJaggedTensor: all rows of the first column, then of
    the second.

    Args:
        schema: Schema of the rows, with the columns that transforms add.
        rows: Rows of the ids of every column; None: unseen ids share one.
    """

    def __init__(self, schema: Schema, rows: Sequence[TableRows] | None = None) -> None:
        self._names = [column.name for column in schema.categorical]
        self._sequences = [index for index, column in enumerate(schema.categorical) if column.sequence]
        self._rows = rows or [TableRows(column) for column in schema.categorical]
        self._shared = not any(column.buckets for column in schema.categorical)  # one pass maps all plain columns
        self._num_seen = np.array([column.num_seen for column in schema.categorical])
        self._plain = np.flatnonzero([not column.sequence for column in schema.categorical])
        indices = (schema.categorical.index(schema.entity(role)) for role in ENTITIES)
        self._user, self._item = (None if index in self._sequences else self._plain_index(index) for index in indices)

    def _plain_index(self, index: int) -> int:
        """Return the index of a column among those with one id per row."""
        return int(np.searchsorted(self._plain, index))

    def __call__(self, rows: Rows, weight: float, stride: int) -> Batch:
        """Make the batch.

        Args:
            rows: Rows of the batch, with the lists of the files first, then those of the transforms.
            weight: See `Batch`.
            stride: Stride of the ids, at least the number of rows; rows past them have no ids.
        """
        values, lengths, sizes = self._ids(rows, stride)
        return Batch(
            ids=KeyedJaggedTensor(
                self._names,
                torch.from_numpy(values),
                lengths=lengths,
                stride=stride,
                length_per_key=sizes,
                offset_per_key=[0, *accumulate(sizes)],
            ),
            dense=torch.from_numpy(rows.dense),
            labels=torch.from_numpy(rows.labels),
            users=torch.from_numpy(rows.ids[self._user]),
            items=torch.from_numpy(np.empty(0, np.int64) if self._item is None else rows.ids[self._item]),
            weight=torch.from_numpy(np.array(weight, np.float32)),
            sample_weights=torch.from_numpy(np.empty(0, np.float32) if rows.weights is None else rows.weights),
        )

    def _ids(self, rows: Rows, stride: int) -> tuple[np.ndarray, torch.Tensor, list[int]]:
        """Return values (unseen ids replaced), lengths ``[columns * stride]``, and the number of values per column."""
        count = len(rows.labels)
        plain = self._table_rows(rows.ids) if rows.unseen else rows.ids
        if not self._sequences:
            return plain.reshape(-1), _lengths_of_ids(len(plain), count, stride), [count] * len(plain)
        lengths = np.ones((len(self._names), stride), np.int64)
        lengths[:, count:] = 0
        columns = dict(zip(self._plain.tolist(), plain, strict=True))
        for index, (ids, of_rows) in zip(self._sequences, rows.sequences, strict=True):
            columns[index] = self._rows[index](ids)
            lengths[index, :count] = of_rows
        values = [columns[index] for index in range(len(self._names))]
        return np.concatenate(values), torch.from_numpy(lengths.reshape(-1)), list(map(len, values))

    def _table_rows(self, ids: np.ndarray) -> np.ndarray:
        if self._shared:
            return np.minimum(ids, self._num_seen[self._plain, None])
        return np.stack([self._rows[index](each) for index, each in zip(self._plain.tolist(), ids, strict=True)])


@lru_cache(maxsize=16)
def _lengths_of_ids(columns: int, count: int, stride: int) -> torch.Tensor:
    """Return the lengths of ids of ``count`` rows, shared by batches of one size: int64 ``[columns * stride]``."""
    lengths = torch.ones(columns, stride, dtype=torch.int64)
    lengths[:, count:] = 0
    return lengths.view(-1)
