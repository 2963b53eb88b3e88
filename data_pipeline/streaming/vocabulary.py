"""Items to score in every batch in addition to those of its rows: all items, a rank's block of them, or a sample."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_pipeline.schema import Categorical, Schema
from data_pipeline.streaming.blocks import Rows
from data_pipeline.streaming.draws import Draws
from data_pipeline.streaming.partition import row_block
from data_pipeline.streaming.row_groups import read_footers, read_split
from data_pipeline.streaming.transforms import Lists, list_column, over_rows

VOCABULARY = "vocabulary"


class VocabularyBlock:
    """Puts the items of training whose table rows belong to this rank into the lists of every batch."""

    def __init__(self, item: Categorical, rank: int = 0, world_size: int = 1) -> None:
        self._items = np.arange(*vocabulary_block(item, rank, world_size))
        self.columns = (list_column(VOCABULARY, item),)

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        return [over_rows(self._items, len(rows.labels))]


class VocabularySample:
    """Puts ``count`` items, drawn with replacement, into the lists of every batch; the same on all ranks in a step.

    With a split for categories, once their codes are set, the items of all categories are first, and then as many of
    each category, in the order of the codes, drawn by the same probabilities within it.

    Args:
        item: The column of items.
        count: Items per batch.
        probabilities: float64 ``[num_seen]``, of the draws.
        split: how the items are divided; None: they are not.
    """

    def __init__(
        self, item: Categorical, count: int, probabilities: np.ndarray, split: CategorySplit | None = None
    ) -> None:
        self._count, self._probabilities, self._split = count, probabilities, split
        self._cumulative = np.cumsum(probabilities)
        self._categories: WithinCategories | None = None
        self.columns = (list_column(VOCABULARY, item),)

    def set_categories(self, codes: np.ndarray) -> None:
        """Set the codes of the items, integers ``[num_seen]``. They may change between epochs only."""
        assert self._split is not None
        self._categories = WithinCategories(codes, self._probabilities, self._split.codes)

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        uniform = draws.of_step(self._count)
        of_all = uniform if self._categories is None or self._split is None else uniform[: self._split.of_all]
        items = np.searchsorted(self._cumulative, of_all * self._cumulative[-1], side="right")
        if self._categories is not None:
            items = np.concatenate([items, self._categories.draw(uniform[len(of_all) :])])
        return [over_rows(items, len(rows.labels))]


class CategorySplit(NamedTuple):
    """How a sample is divided, so that a share of what a position is scored against is of its target's category.

    Attributes:
        of_all: Items drawn from all categories.
        of_each: Items drawn from each category; a position is scored against those of its target's.
        codes: Number of categories.
    """

    of_all: int
    of_each: int
    codes: int

    @classmethod
    def by_share(cls, count: int, share: float, codes: int) -> CategorySplit:
        """Divide ``count`` items; of the ``of_all + of_each`` for a position, ``of_each`` are about the share.

        Example:
            >>> CategorySplit.by_share(4096, 0.2, 8)
            CategorySplit(of_all=1368, of_each=341, codes=8)
        """
        of_each = int(count * share / (1 - share + codes * share))
        return cls(count - codes * of_each, of_each, codes)


class WithinCategories:
    """Draws items of each category, by given probabilities within it.

    Args:
        codes: integers ``[num_seen]``, below ``count``.
        probabilities: float64 ``[num_seen]``.
        count: the number of categories, some of which may be empty.
    """

    def __init__(self, codes: np.ndarray, probabilities: np.ndarray, count: int) -> None:
        self._order = np.argsort(codes, kind="stable")
        self._cumulative = np.cumsum(probabilities[self._order])
        self._ends = np.cumsum(np.bincount(codes, minlength=count))
        self._bounds = np.append(0.0, self._cumulative)[np.append(0, self._ends)]

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Return an item for each of ``uniform [count * n]``: n of every category, in order; any for an empty one."""
        codes = np.arange(len(uniform)) // (len(uniform) // len(self._ends))
        low, high = self._bounds[codes], self._bounds[codes + 1]
        places = np.searchsorted(self._cumulative, low + uniform * (high - low), side="right")
        return self._order[np.clip(places, 0, self._ends[codes] - 1)]


def vocabulary_block(item: Categorical, rank: int, world_size: int) -> tuple[int, int]:
    """Return the first item of a rank's block of the table and the one after the last; the last row is no item."""
    start, stop = row_block(item.num_rows, rank, world_size)
    return min(start, item.num_seen), min(stop, item.num_seen)


def sampling_probabilities(counts: np.ndarray, power: float) -> np.ndarray:
    """Return ``counts ** power``, normalized; with power 0 all items are equally likely."""
    weights = np.maximum(counts, 1).astype(np.float64) ** power
    return weights / weights.sum()


def item_counts(folder: Path | str, schema: Schema, rank: int = 0, world_size: int = 1) -> np.ndarray:
    """Count the occurrences of each item in a rank's share of the training sequences: int64 ``[num_seen]``.

    The sequences are read in parts; see `read_split` for the shares.
    """
    counts = np.zeros(schema.entity("item").num_seen, np.int64)
    for part in read_split(read_footers(Path(folder), schema, "train"), schema, rank, world_size):
        for values, _ in part.sequences:
            np.add.at(counts, values, 1)
    return counts


def batch_keys(schema: Schema) -> list[str]:
    """Return the keys of the ids of a training batch, in the order that every look-up must keep."""
    return [*(column.name for column in schema.categorical), VOCABULARY]
