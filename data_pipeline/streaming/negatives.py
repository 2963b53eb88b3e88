"""Negative sampling: items outside the interaction history of a row's user, from the random numbers of the row.

Shapes: ``B`` rows, ``n`` draws for each, ``N`` cells (pairs of row and draw).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.history import History
from data_pipeline.streaming.draws import Draws

_ROUNDS = 32  # of drawing rejected items again, before the remaining items of a user are listed


class RowNegatives:
    """Draws items ``0 .. num_items-1`` outside a user's history, exactly in proportion to their weights.

    Memory depends on the batch, not on the size of the data.

    Args:
        history: Interaction history whose items are excluded; all of them below ``num_items``, and each once per user.
        num_items: The number of items.
        weights: ``[num_items]``, not negative, in proportion to which items are drawn; None: all equal.
    """

    def __init__(self, history: History, num_items: int, weights: np.ndarray | None = None) -> None:
        self._history = history
        self._offsets, self._items = (np.asarray(array) for array in (history.offsets, history.items))
        self._num_items = num_items
        self._weights = weights
        self._cumulative = None if weights is None else np.cumsum(weights, dtype=np.float64)

    def draw(self, users: np.ndarray, count: int, draws: Draws, *, pool: np.ndarray | None = None) -> np.ndarray:
        """Draw items for every row.

        Args:
            users: int64 ``[B]``, ids with a history.
            count: ``n``.
            draws: Random numbers of the rows.
            pool: Propose these items; those in the user's history are rejected. A user who has nearly all of them gets
                other items, all equally likely.

        Returns:
            int64 ``[B, n]``.

        Raises:
            DataError: A user has all items.
        """
        cells = np.arange(len(users) * count)
        if pool is None and self._cumulative is None:
            return self._others(users[cells // count], draws.of_cells(cells, count)).reshape(-1, count)
        drawn = np.empty(len(cells), np.int64)
        for attempt in range(_ROUNDS):
            drawn[cells] = self._propose(draws.stream(attempt).of_cells(cells, count), pool)
            cells = cells[self.has(users[cells // count], drawn[cells])]
            if len(cells) == 0:
                return drawn.reshape(-1, count)
        uniform = draws.stream(_ROUNDS).of_cells(cells, count)
        for cell, number in zip(cells.tolist(), uniform.tolist(), strict=True):
            drawn[cell] = self._draw_listed(int(users[cell // count]), number)
        return drawn.reshape(-1, count)

    def _propose(self, uniform: np.ndarray, pool: np.ndarray | None) -> np.ndarray:
        if pool is not None:
            return pool[(uniform * len(pool)).astype(np.int64)]
        assert self._cumulative is not None  # without weights `_others` is used
        return np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")

    def _others(self, users: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return items outside the histories of ``users [N]``, all equally likely.

        The item that has u other items before it is u plus the number of the user's items before it: those whose index
        i in the increasing list satisfies ``item - i <= u``.
        """
        begin, end = self._offsets[users], self._offsets[users + 1]
        left = self._num_items - (end - begin)
        if (left <= 0).any():
            raise self._has_all(int(users[np.argmin(left)]))
        others = (uniform * left).astype(np.int64)
        return others + _count(begin, end, lambda at: self._items[at] - (at - begin) <= others)

    def has(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return whether ``users [N]`` have ``items [N]``: bool ``[N]``."""
        begin, end = self._offsets[users], self._offsets[users + 1]
        up_to = _count(begin, end, lambda at: self._items[at] <= items)
        return (up_to > 0) & (self._items[np.maximum(begin + up_to - 1, 0)] == items)

    def _draw_listed(self, user: int, uniform: float) -> int:
        """Draw an item for a user who has nearly all proposed items."""
        seen = self._items[self._offsets[user] : self._offsets[user + 1]]
        left = np.setdiff1d(np.arange(self._num_items), seen)
        if self._weights is not None:
            left = left[self._weights[left] > 0]
        if len(left) == 0:
            raise self._has_all(user)
        share = np.cumsum(np.ones(len(left)) if self._weights is None else self._weights[left], dtype=np.float64)
        return int(left[np.searchsorted(share, uniform * share[-1], side="right")])

    def _has_all(self, user: int) -> DataError:
        return DataError(
            f"{self._history.owner(user)} has interacted with all {self._num_items} items; cannot sample negatives."
            " Prepare the data again with data.saturated_users=drop"
        )


def _count(begin: np.ndarray, end: np.ndarray, holds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Count the positions ``begin <= at < end`` for which ``holds``, true for the first of them: int64 ``[N]``."""
    sizes = end - begin
    count = np.zeros_like(begin)
    last = np.maximum(end - 1, 0)
    for bit in reversed(range(int(sizes.max(initial=0)).bit_length())):
        wider = count + (1 << bit)
        at = np.minimum(begin + wider - 1, last)
        count = np.where((wider <= sizes) & holds(at), wider, count)
    return count
