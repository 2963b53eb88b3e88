"""Items to score in every batch in addition to those of its rows: all items, a rank's block of them, or a sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_pipeline.schema import Categorical, Schema
from data_pipeline.streaming.blocks import Rows
from data_pipeline.streaming.draws import Draws
from data_pipeline.streaming.partition import row_block
from data_pipeline.streaming.row_groups import read_footers, read_split
from data_pipeline.streaming.transforms import Lists, list_column

VOCABULARY = "vocabulary"


class VocabularyBlock:
    """Puts the items of training whose table rows belong to this rank into the list of the first row of every batch."""

    def __init__(self, item: Categorical, rank: int = 0, world_size: int = 1) -> None:
        self._items = np.arange(*vocabulary_block(item, rank, world_size))
        self.columns = (list_column(VOCABULARY, item),)

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        return [_in_first_row(self._items, len(rows.labels))]


class VocabularySample:
    """Puts ``count`` items, drawn with replacement, into the list of the first row; the same on all ranks in a step.

    Args:
        item: The column of items.
        count: Items per batch.
        probabilities: float64 ``[num_seen]``, of the draws.
    """

    def __init__(self, item: Categorical, count: int, probabilities: np.ndarray) -> None:
        self._count = count
        self._cumulative = np.cumsum(probabilities)
        self.columns = (list_column(VOCABULARY, item),)

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        uniform = draws.of_step(self._count) * self._cumulative[-1]
        return [_in_first_row(np.searchsorted(self._cumulative, uniform, side="right"), len(rows.labels))]


def vocabulary_block(item: Categorical, rank: int, world_size: int) -> tuple[int, int]:
    """Return the first item of a rank's block of the table and the one after the last; the last row is no item."""
    start, stop = row_block(item.num_rows, rank, world_size)
    return min(start, item.num_seen), min(stop, item.num_seen)


def sampling_probabilities(counts: np.ndarray, power: float) -> np.ndarray:
    """Return ``counts ** power``, normalized; with power 0 all items are equally likely."""
    weights = np.maximum(counts, 1).astype(np.float64) ** power
    return weights / weights.sum()


def item_counts(folder: Path | str, schema: Schema) -> np.ndarray:
    """Count the occurrences of each item in the training sequences, read in parts: int64 ``[num_seen]``."""
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
    """Return the keys of the ids of a training batch, in the order that every look-up must keep."""
    return [*(column.name for column in schema.categorical), VOCABULARY]
