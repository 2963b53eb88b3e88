"""Checked columns -> blocks of rows, in any order -> `Batch`. Column-wise throughout: no Python loop over rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_pipeline.batch import Batch
from data_pipeline.schema import ENTITIES, Schema
from data_pipeline.streaming.columns import ColumnArrays


@dataclass
class Rows:
    """n rows of a block: those of a batch.

    Attributes:
        ids: int64 ``[P, n]``: the P columns of one id per row, in schema order, as stored.
        sequences: For every column of lists, in schema order: its values, and int64 ``[n]`` lengths.
        dense: float32 ``[n, D]``, standardized.
        labels: float32 ``[n]``.
    """

    ids: np.ndarray
    sequences: list[tuple[np.ndarray, np.ndarray]]
    dense: np.ndarray
    labels: np.ndarray


class Block:
    """Rows of consecutive steps, lane after lane, in matrices, so that a batch is one gather per matrix.

    Call `fill` for every lane, in any order and from any thread; then `arrange`; then `take`.

    Args:
        schema: Schema of the columns.
        sizes: int64 ``[lanes]``, rows of every lane.
    """

    def __init__(self, schema: Schema, sizes: np.ndarray) -> None:
        ends = np.cumsum(sizes)
        rows = int(ends[-1])
        self.starts = ends - sizes
        self._dense_columns = schema.dense
        self._ids = np.empty((sum(not c.sequence for c in schema.categorical), rows), np.int64)
        self._dense = np.empty((rows, len(schema.dense)), np.float32)
        self._labels = np.empty(rows, np.float32)
        self._lists: list[list[list[tuple[np.ndarray, np.ndarray]]]] = [[] for _ in sizes]  # [lane][part][column]
        self._sequences: list[tuple[np.ndarray, np.ndarray]] = []  # values, [rows + 1] offsets
        self._order: np.ndarray | None = None

    def fill(self, lane: int, parts: Iterable[ColumnArrays]) -> None:
        """Write the rows of a lane. Dense columns are standardized in float64: means may far exceed deviations."""
        start = int(self.starts[lane])
        for part in parts:
            at = slice(start, start + len(part))
            for row, ids in enumerate(part.ids):
                self._ids[row, at] = ids
            for column, (moments, values) in enumerate(zip(self._dense_columns, part.dense, strict=True)):
                self._dense[at, column] = (values.astype(np.float64) - moments.mean) / moments.std
            self._labels[at] = part.labels
            self._lists[lane].append(part.sequences)
            start = at.stop

    def arrange(self, order: np.ndarray | None) -> None:
        """Set the order in which rows are taken, by their indices in the block; None: the order of the block."""
        parts = [part for lane in self._lists for part in lane]
        self._sequences = [_concat_lists(pieces) for pieces in zip(*parts, strict=True)]
        self._lists = []
        self._order = order

    def take(self, start: int, stop: int) -> Rows:
        """Return the rows ``start .. stop-1`` of the order: views where that is the order of the block, else copies."""
        if self._order is None:
            at = slice(start, stop)
            lists = [_cut_lists(values, offsets[start : stop + 1]) for values, offsets in self._sequences]
            return Rows(self._ids[:, at], lists, self._dense[at], self._labels[at])
        rows = self._order[start:stop]
        return Rows(
            self._ids.take(rows, axis=1),
            [_take_lists(values, offsets, rows) for values, offsets in self._sequences],
            self._dense.take(rows, axis=0),
            self._labels.take(rows),
        )


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
    """

    def __init__(self, schema: Schema) -> None:
        self._names = [column.name for column in schema.categorical]
        self._sequences = [index for index, column in enumerate(schema.categorical) if column.sequence]
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
                lengths=torch.from_numpy(lengths.reshape(-1)),
                stride=stride,
                length_per_key=sizes,
                offset_per_key=[0, *accumulate(sizes)],
            ),
            dense=torch.from_numpy(rows.dense),
            labels=torch.from_numpy(rows.labels),
            users=torch.from_numpy(rows.ids[self._user]),
            items=torch.from_numpy(np.empty(0, np.int64) if self._item is None else rows.ids[self._item]),
            weight=torch.tensor(weight, dtype=torch.float32),
        )

    def _ids(self, rows: Rows, stride: int) -> tuple[np.ndarray, np.ndarray, list[int]]:
        """Return values (unseen ids replaced), lengths ``[columns, stride]``, and the number of values per column."""
        count = len(rows.labels)
        lengths = np.ones((len(self._names), stride), np.int64)
        lengths[:, count:] = 0
        plain = np.minimum(rows.ids, self._num_seen[self._plain, None])
        if not self._sequences:
            return plain.reshape(-1), lengths, [count] * len(plain)
        columns = dict(zip(self._plain.tolist(), plain, strict=True))
        for index, (ids, of_rows) in zip(self._sequences, rows.sequences, strict=True):
            columns[index] = np.minimum(ids, self._num_seen[index])
            lengths[index, :count] = of_rows
        values = [columns[index] for index in range(len(self._names))]
        return np.concatenate(values), lengths, list(map(len, values))
