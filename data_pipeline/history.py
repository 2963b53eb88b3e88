"""Which items each user has in a split of implicit feedback: two files that are mapped into memory, not read into it.

Layout, under ``history/<split>/``: ``offsets.npy`` int64 ``[users + 1]``, ``items.npy`` int64 ``[rows]``: the items of
user u, rising, are ``items[offsets[u]:offsets[u + 1]]``. Processes of one host share the pages, and the system may drop
them, so the size of the data bounds nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.schema import ATTRIBUTES


@dataclass(frozen=True)
class History:
    """The lists of one split, or any lists of ids that rise.

    Attributes:
        offsets: int64 ``[users + 1]``.
        items: int64 ``[rows]``.
    """

    offsets: np.ndarray
    items: np.ndarray

    @classmethod
    def load(cls, folder: Path | str, split: str) -> History:
        """Map the lists of a split of a prepared folder.

        Raises:
            DataError: there are none: the data is not of implicit feedback.
        """
        try:
            return MappedHistory(Path(folder) / "history" / split)
        except FileNotFoundError as error:
            raise DataError(
                f"{error.filename}: no such file: this data has no histories. Prepare implicit feedback:"
                " data.implicit=true, or data.label=null for custom data"
            ) from error

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def owner(self, user: int) -> str:
        """Name a user for messages."""
        return f"user {user} (encoded)"

    def of(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All items of ``users [B]``, one list after the other, and for each the place ``0 .. B-1`` of its user."""
        starts = self.offsets[users]
        lengths = self.offsets[users + 1] - starts
        ends = np.cumsum(lengths)
        places = np.repeat(np.arange(len(users)), lengths)
        return places, self.items[np.arange(len(places)) + (starts - (ends - lengths))[places]]

    def contains(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Tell whether ``users [B]`` have ``items [B, n]``: bool ``[B, n]``. Reads each list once.

        A negative item stands for none, which no user has.
        """
        distinct, user = np.unique(users, return_inverse=True)
        places, had = self.of(distinct)
        if len(had) == 0:
            return np.zeros(items.shape, dtype=bool)
        width = max(int(had.max()), int(items.max(initial=0))) + 1
        keys = places * width + had  # rising: lists are, and places are
        wanted = user[:, None] * width + items
        found = np.searchsorted(keys, wanted)
        return (keys[np.minimum(found, len(keys) - 1)] == wanted) & (items >= 0)


class MappedHistory(History):
    """A `History` in files; it is sent to other processes as its path."""

    def __init__(self, path: Path) -> None:
        super().__init__(*(np.load(path / f"{name}.npy", mmap_mode="r") for name in ("offsets", "items")))
        object.__setattr__(self, "_path", path)

    def owner(self, user: int) -> str:
        """Name a user, or the item of attributes, by its original id."""
        name = "item" if self._path.name == ATTRIBUTES else "user"
        ids = pq.read_table(self._path.parents[1] / "ids" / f"{name}_id.parquet", filters=[("id", "=", user)])
        return f"{name} {ids['original_id'][0].as_py()!r}"

    def __reduce__(self) -> tuple[type[MappedHistory], tuple[Path]]:
        return MappedHistory, (self._path,)


def write_history(pairs: Iterable[tuple[np.ndarray, np.ndarray]], users: int, rows: int, path: Path) -> None:
    """Write the lists from ``rows`` pairs of user and item, in order of user, then item; they come in parts."""
    path.mkdir(parents=True)
    counts = np.zeros(users + 1, dtype=np.int64)
    items = np.lib.format.open_memmap(path / "items.npy", mode="w+", dtype=np.int64, shape=(rows,))
    at = 0
    for user, item in pairs:
        counts[1:] += np.bincount(user, minlength=users)
        items[at : at + len(item)] = item
        at += len(item)
    items.flush()
    np.save(path / "offsets.npy", np.cumsum(counts))
