"""Items that a user does not have: drawn at random, in vectorized form, exactly, and the same again for the same seed.

Shapes: ``B`` users, ``n`` draws for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.history import History

_ROUNDS = 32  # of drawing again what was rejected, before the items left to a user are listed


class NegativeSampler:
    """Draws items ``0 .. num_items-1`` that are in none of the histories of a user.

    Draws are rejected and drawn again, so they follow the weights among the items left to the user. Memory is that of
    the histories of the B users, whatever the size of the data.

    Args:
        histories: whose items are excluded. A user may be beyond the end of one.
        num_items: items in all.
        weights: ``[num_items]``, not negative, in proportion to which items are drawn; None: all alike.
    """

    def __init__(self, histories: Sequence[History], num_items: int, weights: np.ndarray | None = None) -> None:
        self._histories = tuple(histories)
        self._num_items = num_items
        self._weights = weights
        self._cumulative = None if weights is None else np.cumsum(weights, dtype=np.float64)

    def draw(
        self,
        users: np.ndarray,
        count: int,
        rng: np.random.Generator,
        *,
        distinct: bool = False,
        pool: np.ndarray | None = None,
    ) -> np.ndarray:
        """Items int64 ``[B, count]`` for ``users [B]``.

        Args:
            distinct: no item twice for one user; needs all items alike.
            pool: propose these items, of which a user's own are still rejected.

        Raises:
            DataError: a user has fewer items left than asked.
        """
        drawn = self._propose((len(users), count), rng, pool)
        pending = np.arange(len(users))
        for _ in range(_ROUNDS):
            wrong = self._taken(users[pending], drawn[pending])
            if distinct:
                wrong |= _repeated(drawn[pending])
            rows, columns = np.nonzero(wrong)
            if len(rows) == 0:
                return drawn
            drawn[pending[rows], columns] = self._propose((len(rows),), rng, pool)
            pending = pending[np.flatnonzero(wrong.any(axis=1))]
        for row in pending:
            drawn[row] = self._draw_listed(int(users[row]), count, rng, distinct)
        return drawn

    def _propose(self, shape: tuple[int, ...], rng: np.random.Generator, pool: np.ndarray | None) -> np.ndarray:
        if pool is not None:
            return rng.choice(pool, size=shape)
        if self._cumulative is None:
            return rng.integers(self._num_items, size=shape)
        return np.searchsorted(self._cumulative, rng.random(shape) * self._cumulative[-1], side="right")

    def _taken(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        taken = np.zeros(items.shape, dtype=bool)
        for history in self._histories:
            known = users < len(history)
            taken[known] |= history.contains(users[known], items[known])
        return taken

    def _draw_listed(self, user: int, count: int, rng: np.random.Generator, distinct: bool) -> np.ndarray:
        """For a user who has nearly all items."""
        had = [history.of(np.array([user]))[1] for history in self._histories if user < len(history)]
        left = np.setdiff1d(np.arange(self._num_items), np.concatenate(had))
        if self._weights is not None:
            left = left[self._weights[left] > 0]
        if len(left) < (count if distinct else 1):
            raise DataError(
                f"{self._histories[0].owner(user)} has all but {len(left)} of the {self._num_items} that can be drawn,"
                f" so {count} others cannot be. Prepare the data again, which leaves such users out:"
                " data.saturated_users=drop; or set data.candidates lower"
            )
        share = None if self._weights is None else self._weights[left] / self._weights[left].sum()
        return rng.choice(left, size=count, replace=not distinct, p=share)


def _repeated(items: np.ndarray) -> np.ndarray:
    """Which of ``[B, n]`` stand in their row a second time."""
    order = np.argsort(items, axis=1, kind="stable")
    ranked = np.take_along_axis(items, order, axis=1)
    again = np.zeros(items.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    return again
