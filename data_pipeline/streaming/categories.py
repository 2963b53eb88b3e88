"""Items grouped by category, from which category negatives are drawn.

Shapes: ``I`` items, ``N`` draws.
"""

from __future__ import annotations

import numpy as np


class ItemsByCategory:
    """A partition of the items ``0 .. I-1``.

    Memory: an index of ``I`` items, of 4 bytes each below 2**31 items; building it is one stable sort.

    Args:
        codes: Integers ``[I]``, the category of each item, 0 or above.
        members: int64 ``[n]``, the items that are drawn, in proportion to how often they are in it; None: each once.

    Example:
        >>> ItemsByCategory(np.array([1, 0, 1])).draw(np.array([0, 0, 1]), np.array([0.4, 0.6, 0.9]))
        array([0, 2, 1])
    """

    def __init__(self, codes: np.ndarray, members: np.ndarray | None = None) -> None:
        dtype = np.int32 if len(codes) < 1 << 31 else np.int64
        self._codes = codes
        of_members = codes if members is None else codes[members]
        order = np.argsort(of_members, kind="stable")
        self._order = (order if members is None else members[order]).astype(dtype)
        self._sizes = np.bincount(of_members)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def among(self, members: np.ndarray) -> ItemsByCategory:
        """Return the same categories, of which only ``members`` int64 ``[n]`` are drawn. One sort of them."""
        return ItemsByCategory(self._codes, members)

    def draw(self, items: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return for each of ``items [N]`` an item of its category, all equally likely, itself included.

        Args:
            items: int64 ``[N]``, of categories that have members.
            uniform: float64 ``[N]``, in [0, 1).

        Returns:
            int64 ``[N]``.
        """
        codes = self._codes[items]
        within = (uniform * self._sizes[codes]).astype(np.int64)
        return self._order[self._starts[codes] + within].astype(np.int64)
