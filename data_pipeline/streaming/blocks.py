"""Checked columns -> blocks of rows, in any order -> `Batch`. Column-wise throughout: no Python loop over rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from data_pipeline.batch import Batch
from data_pipeline.schema import Schema
from data_pipeline.streaming.columns import ColumnArrays


@dataclass
class Rows:
    """n rows taken out of a block: a batch.

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
    """Rows of consecutive steps, lane after lane, in matrices, so that a batch is one gather per matrix.

    `fill` every lane, in any order and from any threads; then `arrange`; then `take`.

    Args:
        schema: of the columns.
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
        """Write the rows of a lane; standardize dense columns in float64: a mean may be large beside the deviation."""
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
        """Set the order in which rows are taken, by their places in the block; None: as they are."""
        parts = [part for lane in self._lists for part in lane]
        self._sequences = [_concat_lists(pieces) for pieces in zip(*parts, strict=True)]
        self._lists = []
        self._order = order

    def take(self, start: int, stop: int) -> Rows:
        """The rows ``start .. stop-1`` of the block's order: views of the block where that is its own, else copies."""
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
    """The lists between the given offsets, one after the other, and their lengths."""
    return values[offsets[0] : offsets[-1]], np.diff(offsets)


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """``starts[i], starts[i] + 1, …``, ``lengths[i]`` of them, for every i in turn: int64 ``[sum of lengths]``."""
    shifts = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
    shifts += np.arange(len(shifts))
    return shifts


def _concat_lists(pieces: tuple[tuple[np.ndarray, np.ndarray], ...]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.concatenate([np.diff(offsets) for _, offsets in pieces])
    return np.concatenate([values for values, _ in pieces]), np.append(0, np.cumsum(lengths))


def _take_lists(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lists of the given rows, one after the other, and their lengths."""
    starts = offsets[rows]
    lengths = offsets[rows + 1] - starts
    return values.take(ranges(starts, lengths)), lengths


class BatchLayout:
    """Makes a `Batch` of rows, with the ids key-major, as a KeyedJaggedTensor has them: all rows of the first column,
    then of the second.

    Args:
        schema: of the rows, with the columns that transforms add.
    """

    def __init__(self, schema: Schema) -> None:
        self._names = [column.name for column in schema.categorical]
        self._sequences = [place for place, column in enumerate(schema.categorical) if column.sequence]
        self._num_seen = np.array([column.num_seen for column in schema.categorical])
        self._plain = np.flatnonzero([not column.sequence for column in schema.categorical])
        places = (schema.categorical.index(schema.entity(role)) for role in ("user", "item"))
        self._user, self._item = (None if place in self._sequences else self._rank_of(place) for place in places)

    def _rank_of(self, place: int) -> int:
        """Of a column among those of one id per row."""
        return int(np.searchsorted(self._plain, place))

    def __call__(self, rows: Rows, weight: float, stride: int) -> Batch:
        """The batch.

        Args:
            rows: sequences first those of the files, then those of the transforms.
            weight: see `Batch`.
            stride: of the ids, at least the number of rows; rows past them hold no ids.
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
        """Values, lengths ``[columns, stride]``, and the values of each column; unseen ids as the reserved row."""
        count = len(rows.labels)
        lengths = np.ones((len(self._names), stride), np.int64)
        lengths[:, count:] = 0
        plain = np.minimum(rows.ids, self._num_seen[self._plain, None])
        if not self._sequences:
            return plain.reshape(-1), lengths, [count] * len(plain)
        columns = dict(zip(self._plain.tolist(), plain, strict=True))
        for place, (ids, of_rows) in zip(self._sequences, rows.sequences, strict=True):
            columns[place] = np.minimum(ids, self._num_seen[place])
            lengths[place, :count] = of_rows
        values = [columns[place] for place in range(len(self._names))]
        return np.concatenate(values), lengths, list(map(len, values))
