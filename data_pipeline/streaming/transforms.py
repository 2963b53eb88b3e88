"""Lists of ids that are not in the files but drawn or enumerated for every batch.

A transform appends columns of lists to the rows of a batch. Its random numbers belong to the rows of the epoch, so that
the draws of a row are the same after a restart, and on every rank and thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np

from data_pipeline.history import History
from data_pipeline.schema import ATTRIBUTES, Categorical, Schema
from data_pipeline.streaming.blocks import Rows
from data_pipeline.streaming.categories import ItemsByCategory
from data_pipeline.streaming.draws import Draws
from data_pipeline.streaming.negatives import RowNegatives
from data_pipeline.streaming.partition import row_block

NEGATIVES = "negatives"
EDGE_ITEM, EDGE_ATTRIBUTE, EDGE_NEGATIVE = "edge_item", "edge_attribute", "edge_negative"
USER_BLOCK, ITEM_BLOCK = "user_block", "item_block"

_CHOOSE, _WITHIN, _CHOOSE_ROWS = (
    (1 << 16) + number for number in range(3)
)  # streams of random numbers; those of `RowNegatives` are lower

Lists = tuple[np.ndarray, np.ndarray]  # values, and int64 [n] lengths
NegativeSource = Literal["uniform", "popularity", "in_batch"]


class RowTransform(Protocol):
    """Appends columns of lists to the rows of a batch."""

    @property
    def columns(self) -> tuple[Categorical, ...]: ...

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        """Return one list per row for each of `columns`."""
        ...


class DrawNegatives:
    """Draws trained items outside the training history of the row's user, as a further feature of the item table.

    Args:
        schema: Schema of the rows.
        history: History of the training split.
        count: Items per row.
        source: "uniform"; "popularity", in proportion to (occurrences in training) ** `power`; or "in_batch", from the
            items of this batch. It is a rank's part of the global batch, so in-batch negatives depend on the number of
            ranks.
        power: Exponent of the occurrences, for "popularity".
        category_share: Probability with which an item of the category of the row's own item is drawn instead, all of
            them equally likely, once `categories` are known; with "in_batch" one of this batch. One in the user's
            history, or one that is kept from earlier data, is rejected, and the item of `source` stays.
        hardest_of: Candidates for each negative, side by side, from which the model chooses.
        hardest_share: The share of the rows that have several candidates; the others have one for each negative.

    Attributes:
        categories: Categories of the items. They may change between epochs only.
    """

    def __init__(
        self,
        schema: Schema,
        history: History,
        count: int,
        source: NegativeSource,
        power: float = 1.0,
        category_share: float = 0.0,
        hardest_of: int = 1,
        hardest_share: float = 1.0,
    ) -> None:
        plain = [column for column in schema.categorical if not column.sequence]
        item = schema.entity("item")
        self._user, self._item = plain.index(schema.entity("user")), plain.index(item)
        self._width, self._source, self._category_share = count * hardest_of, source, category_share
        self._hardest_of, self._hardest_share = hardest_of, hardest_share
        self.categories: ItemsByCategory | None = None
        weights = occurrences(history, item.num_trained) ** power if source == "popularity" else None
        self._negatives, self._num_trained = RowNegatives(history, item.num_trained, weights), item.num_trained
        self.columns = (list_column(NEGATIVES, item),)

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        pool = rows.ids[self._item] if self._source == "in_batch" else None
        drawn = self._negatives.draw(rows.ids[self._user], self._width, draws, pool=pool).ravel()
        if self.categories is not None:
            categories = self.categories if pool is None else self.categories.among(pool)
            self._replace_within_categories(drawn, rows, categories, draws)
        lengths = np.full(len(rows.labels), self._width)
        if self._hardest_of > 1 and self._hardest_share < 1:
            several = draws.stream(_CHOOSE_ROWS).of_rows(len(lengths), 1)[:, 0] < self._hardest_share
            first = np.arange(self._width) % self._hardest_of == 0
            drawn = drawn[(several[:, np.newaxis] | first).ravel()]
            lengths[~several] //= self._hardest_of
        return [(drawn, lengths)]

    def set_categories(self, codes: np.ndarray) -> None:
        """Set `categories` from the codes of the items, integers ``[I]``."""
        self.categories = ItemsByCategory(codes)

    def _replace_within_categories(
        self, drawn: np.ndarray, rows: Rows, categories: ItemsByCategory, draws: Draws
    ) -> None:
        """Replace a share of the negatives ``[B * width]``, in place, by items of the categories of the rows' items."""
        cells = np.arange(len(drawn))
        cells = cells[draws.stream(_CHOOSE).of_cells(cells, self._width) < self._category_share]
        proposed = categories.draw(
            rows.ids[self._item][cells // self._width], draws.stream(_WITHIN).of_cells(cells, self._width)
        )
        accepted = ~self._negatives.has(rows.ids[self._user][cells // self._width], proposed)
        accepted &= proposed < self._num_trained
        drawn[cells[accepted]] = proposed[accepted]


class DrawEdges:
    """Draws for every row an edge from an item to one of its attributes, uniformly, and an attribute it does not have.

    Args:
        item: The column of items.
        attributes: The attributes of every item.
        num_attributes: The number of attributes.
    """

    def __init__(self, item: Categorical, attributes: History, num_attributes: int) -> None:
        self._attributes = attributes
        self._negatives = RowNegatives(attributes, num_attributes)
        attribute = Categorical(ATTRIBUTES, num_attributes, num_attributes)
        tails = (list_column(name, attribute) for name in (EDGE_ATTRIBUTE, EDGE_NEGATIVE))
        self.columns = (list_column(EDGE_ITEM, item), *tails)

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        count = len(rows.labels)
        edges = (draws.stream(0).of_rows(count, 1)[:, 0] * len(self._attributes.items)).astype(np.int64)
        heads = np.searchsorted(self._attributes.offsets, edges, side="right") - 1
        ones = np.ones(count, np.int64)
        negatives = self._negatives.draw(heads, 1, draws.stream(1)).ravel()
        return [(heads, ones), (self._attributes.items[edges], ones), (negatives, ones)]


class DropIds:
    """Replaces ids by the out-of-vocabulary row, each with the same probability, so that training reaches this row.

    Put it after the transforms that draw by the ids of a row. Lists that enumerate or draw rows of tables for other
    purposes, such as blocks and edges, stay as they are.

    Args:
        schema: Schema of the rows.
        share: Probability.
        transforms: The transforms before this one; negatives among their lists are replaced as well, and so are the
            entries of the schema's own lists, each with the same probability.
        width: Maximum number of negatives of a row.
    """

    columns: tuple[Categorical, ...] = ()

    def __init__(self, schema: Schema, share: float, transforms: Sequence[RowTransform] = (), width: int = 1) -> None:
        self._share = share
        self._reserved = np.array([column.num_seen for column in schema.categorical if not column.sequence])
        stored = [column for column in schema.categorical if column.sequence]
        added = [column for transform in transforms for column in transform.columns]
        self._lists = [(index, each.num_seen, each.max_length) for index, each in enumerate(stored)]
        self._lists += [
            (index, each.num_seen, width) for index, each in enumerate(added, len(stored)) if each.name == NEGATIVES
        ]

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        count, columns = len(rows.labels), len(self._reserved)
        dropped = self._share > draws.stream(0).of_rows(count, columns).T
        rows.ids = np.where(dropped, self._reserved[:, np.newaxis], rows.ids)
        for number, (index, reserved, width) in enumerate(self._lists, 1):
            values, lengths = rows.sequences[index]
            row = np.repeat(np.arange(count), lengths)
            place = np.arange(len(values)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            drawn = draws.stream(number).of_cells(row * width + place, width)
            rows.sequences[index] = np.where(drawn < self._share, reserved, values), lengths
        return []


class RowBlocks:
    """Puts all rows of the user and the item table of this rank into the lists of every batch."""

    def __init__(self, schema: Schema, rank: int, world_size: int) -> None:
        user, item = schema.entity("user"), schema.entity("item")
        self._blocks = [np.arange(*row_block(column.num_rows, rank, world_size)) for column in (user, item)]
        self.columns = (list_column(USER_BLOCK, user), list_column(ITEM_BLOCK, item))

    def __call__(self, rows: Rows, draws: Draws) -> list[Lists]:
        return [over_rows(block, len(rows.labels)) for block in self._blocks]


def over_rows(values: np.ndarray, rows: int) -> Lists:
    """Divide values, in their order, among the lists of all rows as evenly as possible.

    On GPUs the entries of one list are looked up one after another, and lists in parallel.

    Example:
        >>> over_rows(np.array([7, 8, 9]), 2)
        (array([7, 8, 9]), array([1, 2]))
    """
    return values, np.diff(np.arange(rows + 1) * len(values) // rows)


def list_column(name: str, like: Categorical) -> Categorical:
    """Return a column of lists of ids of the same table."""
    return Categorical(name, like.num_ids, like.num_seen, like.role, sequence=True, table=like.table_name)


def occurrences(history: History, num_items: int, part: int = 1 << 20) -> np.ndarray:
    """Count the occurrences of each item, a part of the history at a time: int64 ``[num_items]``."""
    counts = np.zeros(num_items, np.int64)
    for start in range(0, len(history.items), part):
        np.add.at(counts, history.items[start : start + part], 1)
    return counts
