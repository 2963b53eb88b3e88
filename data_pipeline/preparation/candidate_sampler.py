"""Draw distinct items outside the interaction history of a user, uniformly and reproducibly.

Shapes: ``B`` users, ``n`` draws for each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.history import History

_ROUNDS = 32  # of drawing rejected items again, before the remaining items of a user are listed


class CandidateSampler:
    """Draws items ``0 .. num_items-1`` that are in none of the histories of a user.

    Rejected items are drawn again, so all remaining items of a user are equally likely. Memory depends on the histories
    of the B users, not on the size of the data.

    Args:
        histories: Interaction histories whose items are excluded. A user may be beyond the end of one.
        num_items: The number of items.

    Example:
        >>> history = History(np.array([0, 2]), np.array([0, 3]))  # user 0 has the items 0 and 3
        >>> sampler = CandidateSampler([history], num_items=4)
        >>> sorted(sampler.draw(np.array([0]), 2, np.random.default_rng(0))[0].tolist())
        [1, 2]
    """

    def __init__(self, histories: Sequence[History], num_items: int) -> None:
        self._histories = tuple(histories)
        self._num_items = num_items

    def draw(self, users: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """Draw distinct items for every user.

        Args:
            users: int64 ``[B]``.
            count: ``n``.
            rng: Source of the random numbers.

        Returns:
            int64 ``[B, n]``.

        Raises:
            DataError: A user has fewer remaining items than ``count``.
        """
        drawn = rng.integers(self._num_items, size=(len(users), count))
        pending = np.arange(len(users))
        for _ in range(_ROUNDS):
            rejected = self._taken(users[pending], drawn[pending]) | _repeated(drawn[pending])
            rows, columns = np.nonzero(rejected)
            if len(rows) == 0:
                return drawn
            drawn[pending[rows], columns] = rng.integers(self._num_items, size=len(rows))
            pending = pending[np.flatnonzero(rejected.any(axis=1))]
        for row in pending:
            drawn[row] = rng.choice(self._remaining(int(users[row]), count), size=count, replace=False)
        return drawn

    def _taken(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        taken = np.zeros(items.shape, dtype=bool)
        for history in self._histories:
            known = users < len(history)
            taken[known] |= history.contains(users[known], items[known])
        return taken

    def _remaining(self, user: int, count: int) -> np.ndarray:
        """List the items outside the histories of a user."""
        seen = [history.of(np.array([user]))[1] for history in self._histories if user < len(history)]
        remaining = np.setdiff1d(np.arange(self._num_items), np.concatenate(seen))
        if len(remaining) < count:
            raise DataError(
                f"{self._histories[0].owner(user)} has {len(remaining)} of the {self._num_items} items outside the"
                f" interaction history; cannot draw {count} candidates. Prepare the data again with"
                " data.saturated_users=drop, or lower data.candidates"
            )
        return remaining


def _repeated(items: np.ndarray) -> np.ndarray:
    """Mark the elements of ``[B, n]`` that are equal to another one before them in their row."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    repeated = np.zeros(items.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated
