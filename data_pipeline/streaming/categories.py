"""Items grouped by category, from which category negatives are drawn.

Shapes: ``I`` items, ``N`` draws.
"""

from __future__ import annotations

import numpy as np


class ItemCategories:
    """A partition of the items ``0 .. I-1``.

    Memory: an index of ``I`` items, of 4 bytes each below 2**31 items; building it is one stable sort.

    Args:
        codes: integers ``[I]``, the category of each item, 0 or above.

    Example:
        >>> ItemCategories(np.array([1, 0, 1])).draw(np.array([0, 0, 1]), np.array([0.4, 0.6, 0.9]))
        array([0, 2, 1])
    """

    def __init__(self, codes: np.ndarray) -> None:
        dtype = np.int32 if len(codes) < 1 << 31 else np.int64
        self._codes = codes
        self._order = np.argsort(codes, kind="stable").astype(dtype)
        self._sizes = np.bincount(codes)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def draw(self, items: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """Return for each of ``items [N]`` an item of its category, all equally likely, itself included.

        Args:
            items: int64 ``[N]``.
            uniform: float64 ``[N]``, in [0, 1).

        Returns:
            int64 ``[N]``.
        """
        codes = self._codes[items]
        within = (uniform * self._sizes[codes]).astype(np.int64)
        return self._order[self._starts[codes] + within].astype(np.int64)
