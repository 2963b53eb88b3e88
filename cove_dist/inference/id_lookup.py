"""Look up ids among all original ids of a table.

Shapes: ``N`` ids of the table, ``n`` requested ids.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_RUNS = 8  # sorted runs, more than preparation writes: seen, kept and unseen ids, each with a null at its end


class IdLookup:
    """Finds ids by binary search, so that a request costs its own length and the logarithm of the table's.

    Prepared ids are a few increasing runs, which are searched where they are. Ids in any other order are sorted on
    first use. Ids of other types than whole numbers and text are hashed by every request.

    Args:
        ids: Original ids ``[N]``.

    Example:
        >>> IdLookup(pa.array(["b", "d", "a", None])).find(pa.array(["a", "c", None]))
        array([ 2, -1,  3])
    """

    def __init__(self, ids: pa.Array) -> None:
        self.ids = ids

    def find(self, wanted: pa.Array) -> np.ndarray:
        """Return the index of the first equal id, int64 ``[n]``, -1 where there is none; a null equals a null.

        Args:
            wanted: Ids ``[n]`` of the type of the table's.
        """
        kind = self.ids.type
        if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return _by_hash(wanted, self.ids)
        found = np.full(len(wanted), -1, np.int64)
        for start, stop in self._runs:
            at = _search(self._sorted, start, stop, wanted)
            found = np.where(found < 0, at, found)
        if self._order is not None:
            found = np.where(found < 0, -1, self._order[found])
        if self.ids.null_count and wanted.null_count:
            found[_booleans(wanted.is_null())] = pc.index(self.ids.is_null(), True).as_py()
        return found

    def find_text(self, wanted: pa.Array) -> np.ndarray:
        """Return the index of the first id of an equal text, as `find`; all ids are hashed.

        Args:
            wanted: Texts ``[n]``.
        """
        return _by_hash(wanted.cast(pa.large_string()), self._texts)

    @cached_property
    def _texts(self) -> pa.Array:
        return self.ids.cast(pa.large_string())  # 2 GiB of text do not fit into string

    @cached_property
    def _starts(self) -> np.ndarray:
        """The first index of every increasing run; a null is a run of its own."""
        rises = _booleans(pc.less(self.ids[:-1], self.ids[1:]))
        return np.concatenate([[0], np.flatnonzero(~rises) + 1])

    @cached_property
    def _order(self) -> np.ndarray | None:
        """The indices of the ids in increasing order, int64 ``[N]``, nulls last; None: they are in few runs."""
        few = len(self._starts) <= _RUNS
        return None if few else pc.sort_indices(self.ids).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def _sorted(self) -> pa.Array:
        return self.ids if self._order is None else self.ids.take(pa.array(self._order))

    @property
    def _runs(self) -> list[tuple[int, int]]:
        """The first index of every sorted run, and the one behind its last."""
        if self._order is not None:
            return [(0, len(self.ids) - self.ids.null_count)]
        return list(zip(self._starts.tolist(), [*self._starts[1:].tolist(), len(self.ids)], strict=True))


def _by_hash(wanted: pa.Array, ids: pa.Array) -> np.ndarray:
    return pc.index_in(wanted, ids).fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)


def _search(ids: pa.Array, start: int, stop: int, wanted: pa.Array) -> np.ndarray:
    """Return the index of every id among ``ids[start:stop]``, which increase: int64 ``[n]``, -1 where there is none."""
    low, high = np.full(len(wanted), start), np.full(len(wanted), stop)
    if start == stop:
        return np.full(len(wanted), -1)
    for _ in range((stop - start).bit_length()):
        middle = np.minimum((low + high) // 2, stop - 1)
        below = _booleans(pc.less(ids.take(pa.array(middle)), wanted)) & (low < high)
        low, high = np.where(below, middle + 1, low), np.where(below, high, middle)
    at = np.minimum(low, stop - 1)
    return np.where(_booleans(pc.equal(ids.take(pa.array(at)), wanted)), at, -1)


def _booleans(values: pa.Array) -> np.ndarray:
    return values.fill_null(False).to_numpy(zero_copy_only=False)
