"""Items for every batch to be scored against, beside its own: a rank's block of all of them, all, or a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_pipeline.schema import Categorical, Schema
from data_pipeline.streaming.blocks import Rows
from data_pipeline.streaming.draws import Draws
from data_pipeline.streaming.row_groups import read_footers, read_split
from data_pipeline.streaming.transforms import Lists, list_column, row_block

VOCABULARY = "vocabulary"


class VocabularyBlock:
    """In every batch the items of training whose rows fall to this rank, in the first row's list."""

    def __init__(self, item: Categorical, rank: int = 0, world_size: int = 1) -> None:
        self._items = np.arange(*vocabulary_block(item, rank, world_size))
        self.columns = (list_column(VOCABULARY, item),)

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        return [_in_first_row(self._items, len(rows.labels))]


class VocabularySample:
    """In every batch ``count`` items drawn with replacement, in the first row's list; in a step on all ranks the same.

    Args:
        item: the column of items.
        count: items a batch.
        probabilities: float64 ``[num_seen]``, by which they are drawn.
    """

    def __init__(self, item: Categorical, count: int, probabilities: np.ndarray) -> None:
        self._count = count
        self._cumulative = np.cumsum(probabilities)
        self.columns = (list_column(VOCABULARY, item),)

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        uniform = draws.of_step(self._count) * self._cumulative[-1]
        return [_in_first_row(np.searchsorted(self._cumulative, uniform, side="right"), len(rows.labels))]


def vocabulary_block(item: Categorical, rank: int, world_size: int) -> tuple[int, int]:
    """First item, and the one after the last, of a rank's block of the table, of whose rows the last is no item."""
    start, stop = row_block(item.num_rows, rank, world_size)
    return min(start, item.num_seen), min(stop, item.num_seen)


def sampling_probabilities(counts: np.ndarray, power: float) -> np.ndarray:
    """``counts ** power``, normalized; 0 draws all items alike."""
    weights = np.maximum(counts, 1).astype(np.float64) ** power
    return weights / weights.sum()


def item_counts(folder: Path | str, schema: Schema) -> np.ndarray:
    """How often each item occurs in the lists of training: int64 ``[num_seen]``, read a part at a time."""
    counts = np.zeros(schema.entity("item").num_seen, np.int64)
    for part in read_split(read_footers(Path(folder), schema, "train"), schema):
        for values, _ in part.sequences:
            counts += np.bincount(values, minlength=len(counts))
    return counts


def _in_first_row(items: np.ndarray, rows: int) -> Lists:
    lengths = np.zeros(rows, np.int64)
    lengths[0] = len(items)
    return items, lengths


def batch_keys(schema: Schema) -> list[str]:
    """The keys of a training batch's ids, in their order, which every look-up must keep."""
    return [*(column.name for column in schema.categorical), VOCABULARY]
