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

    Draws are rejected and drawn again, so all items left to a user are alike. Memory is that of the histories of the B
    users, whatever the size of the data.

    Args:
        histories: whose items are excluded. A user may be beyond the end of one.
        num_items: items in all.
    """

    def __init__(self, histories: Sequence[History], num_items: int) -> None:
        self._histories = tuple(histories)
        self._num_items = num_items

    def draw(self, users: np.ndarray, count: int, rng: np.random.Generator, *, distinct: bool = False) -> np.ndarray:
        """Items int64 ``[B, count]`` for ``users [B]``.

        Args:
            distinct: no item twice for one user.

        Raises:
            DataError: a user has fewer items left than asked.
        """
        drawn = rng.integers(self._num_items, size=(len(users), count))
        pending = np.arange(len(users))
        for _ in range(_ROUNDS):
            wrong = self._taken(users[pending], drawn[pending])
            if distinct:
                wrong |= _repeated(drawn[pending])
            rows, columns = np.nonzero(wrong)
            if len(rows) == 0:
                return drawn
            drawn[pending[rows], columns] = rng.integers(self._num_items, size=len(rows))
            pending = pending[np.flatnonzero(wrong.any(axis=1))]
        for row in pending:
            drawn[row] = self._draw_listed(int(users[row]), count, rng, distinct)
        return drawn

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
        if len(left) < (count if distinct else 1):
            raise DataError(
                f"{self._histories[0].owner(user)} has all but {len(left)} of the {self._num_items} that can be drawn,"
                f" so {count} others cannot be. Prepare the data again, which leaves such users out:"
                " data.saturated_users=drop; or set data.candidates lower"
            )
        return rng.choice(left, size=count, replace=not distinct)


def _repeated(items: np.ndarray) -> np.ndarray:
    """Which of ``[B, n]`` stand in their row a second time."""
    order = np.argsort(items, axis=1, kind="stable")
    ranked = np.take_along_axis(items, order, axis=1)
    again = np.zeros(items.shape, dtype=bool)
    np.put_along_axis(again, order[:, 1:], ranked[:, 1:] == ranked[:, :-1], axis=1)
    return again
