"""Items that a row's user does not have, from the random numbers of the row.

Shapes: ``B`` rows, ``n`` draws for each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.history import History
from data_pipeline.streaming.draws import Draws

_ROUNDS = 32  # of drawing again what was rejected, before the items left to a user are listed


class RowNegatives:
    """Draws items ``0 .. num_items-1`` that a user does not have, exactly in proportion to their weights.

    Memory is that of the batch, whatever the size of the data.

    Args:
        history: whose items are excluded; all of them below ``num_items``, and each once for a user.
        num_items: items in all.
        weights: ``[num_items]``, not negative, in proportion to which items are drawn; None: all alike.
    """

    def __init__(self, history: History, num_items: int, weights: np.ndarray | None = None) -> None:
        self._offsets, self._items = (np.asarray(array) for array in (history.offsets, history.items))
        self._num_items = num_items
        self._weights = weights
        self._cumulative = None if weights is None else np.cumsum(weights, dtype=np.float64)

    def draw(self, users: np.ndarray, count: int, draws: Draws, *, pool: np.ndarray | None = None) -> np.ndarray:
        """Items int64 ``[B, count]`` for ``users [B]``.

        Args:
            users: ids with a history.
            count: ``n``.
            draws: of the rows.
            pool: propose these items, of which a user's own are still rejected. A user who has nearly all of them gets
                any other items, all alike.

        Raises:
            DataError: a user has all items.
        """
        cells = np.arange(len(users) * count)
        if pool is None and self._cumulative is None:
            return self._others(users[cells // count], draws.of_cells(cells, count)).reshape(-1, count)
        drawn = np.empty(len(cells), np.int64)
        for attempt in range(_ROUNDS):
            drawn[cells] = self._propose(draws.stream(attempt).of_cells(cells, count), pool)
            cells = cells[self._has(users[cells // count], drawn[cells])]
            if len(cells) == 0:
                return drawn.reshape(-1, count)
        uniform = draws.stream(_ROUNDS).of_cells(cells, count)
        for cell, number in zip(cells.tolist(), uniform.tolist(), strict=True):
            drawn[cell] = self._draw_listed(int(users[cell // count]), number)
        return drawn.reshape(-1, count)

    def _propose(self, uniform: np.ndarray, pool: np.ndarray | None) -> np.ndarray:
        if pool is not None:
            return pool[(uniform * len(pool)).astype(np.int64)]
        assert self._cumulative is not None  # all alike are counted out, not proposed
        return np.searchsorted(self._cumulative, uniform * self._cumulative[-1], side="right")

    def _others(self, users: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Items that ``users [N]`` do not have, all alike.

        The item that u others precede is u plus the number of the user's items before it: those at whose places i in
        the rising list ``item - i <= u``.
        """
        begin, end = self._offsets[users], self._offsets[users + 1]
        left = self._num_items - (end - begin)
        if (left <= 0).any():
            raise _has_all(int(users[np.argmin(left)]), self._num_items)
        others = (uniform * left).astype(np.int64)
        return others + _count(begin, end, lambda at: self._items[at] - (at - begin) <= others)

    def _has(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Whether ``users [N]`` have ``items [N]``: bool ``[N]``."""
        begin, end = self._offsets[users], self._offsets[users + 1]
        up_to = _count(begin, end, lambda at: self._items[at] <= items)
        return (up_to > 0) & (self._items[np.maximum(begin + up_to - 1, 0)] == items)

    def _draw_listed(self, user: int, uniform: float) -> int:
        """For a user who has nearly all items that are proposed."""
        had = self._items[self._offsets[user] : self._offsets[user + 1]]
        left = np.setdiff1d(np.arange(self._num_items), had)
        if self._weights is not None:
            left = left[self._weights[left] > 0]
        if len(left) == 0:
            raise _has_all(user, self._num_items)
        share = np.cumsum(np.ones(len(left)) if self._weights is None else self._weights[left], dtype=np.float64)
        return int(left[np.searchsorted(share, uniform * share[-1], side="right")])


def _has_all(user: int, num_items: int) -> DataError:
    return DataError(
        f"user {user} (encoded) has interacted with all {num_items} items that can be drawn, so there is no negative."
        " Prepare the data again without such users"
    )


def _count(begin: np.ndarray, end: np.ndarray, holds: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """How many of the places ``begin <= at < end`` hold, where none holds after one that does not: int64 ``[N]``."""
    sizes = end - begin
    count = np.zeros_like(begin)
    last = np.maximum(end - 1, 0)
    for bit in reversed(range(int(sizes.max(initial=0)).bit_length())):
        wider = count + (1 << bit)
        at = np.minimum(begin + wider - 1, last)
        count = np.where((wider <= sizes) & holds(at), wider, count)
    return count
