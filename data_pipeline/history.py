"""Interaction histories: the items of each user in a split of implicit feedback, in files that are mapped into memory.

Layout of ``history/<split>/``: ``offsets.npy`` int64 ``[users + 1]``, ``items.npy`` int64 ``[rows]``: the items of user
u, in increasing order, are ``items[offsets[u]:offsets[u + 1]]``. Processes of one host share the pages of the files,
and the system may drop pages from memory, so histories may be larger than memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.id_tables import read_original_id
from data_pipeline.integrity import checked_file
from data_pipeline.schema import ATTRIBUTES

_ARRAYS = "offsets", "items"


@dataclass(frozen=True)
class History:
    """The interaction history of every user in one split, or any lists of increasing ids.

    Attributes:
        offsets: int64 ``[users + 1]``.
        items: int64 ``[rows]``.

    Example:
        >>> history = History(np.array([0, 2, 3]), np.array([4, 7, 4]))  # user 0: items 4 and 7; user 1: item 4
        >>> history.contains(np.array([0, 1]), np.array([[7, 5], [7, 4]])).tolist()
        [[True, False], [False, True]]
    """

    offsets: np.ndarray
    items: np.ndarray

    @classmethod
    def load(cls, folder: Path | str, split: str) -> History:
        """Map the histories of a split of a prepared folder.

        Raises:
            DataError: The folder has no histories: it was not prepared as implicit feedback; or they were altered.
        """
        try:
            for array in _ARRAYS:
                checked_file(folder, f"history/{split}/{array}.npy")
            return MappedHistory(history_path(folder, split))
        except FileNotFoundError as error:
            if not Path(folder).is_dir():
                raise DataError(f"{folder}: no such folder. Restore it, or prepare the data again") from error
            raise DataError(
                f"{error.filename}: no such file: these data have no interaction histories. Prepare them as implicit"
                " feedback: data.implicit=true, or data.label=null for custom data"
            ) from error

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def owner(self, user: int) -> str:
        """Describe a user in messages."""
        return f"user {user} (encoded)"

    def of(self, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the items of ``users [B]``, user after user.

        Returns:
            int64 ``[n]`` indices into ``users``, and int64 ``[n]`` items.
        """
        starts = self.offsets[users]
        lengths = self.offsets[users + 1] - starts
        ends = np.cumsum(lengths)
        indices = np.repeat(np.arange(len(users)), lengths)
        return indices, self.items[np.arange(len(indices)) + (starts - (ends - lengths))[indices]]

    def contains(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return whether ``users [B]`` have ``items [B, n]``: bool ``[B, n]``. Reads the history of each user once.

        A negative item stands for no item, which is in no history.
        """
        distinct, user = np.unique(users, return_inverse=True)
        indices, seen = self.of(distinct)
        if len(seen) == 0:
            return np.zeros(items.shape, dtype=bool)
        width = max(int(seen.max()), int(items.max(initial=0))) + 1
        keys = indices * width + seen  # increasing, as the indices and the items of each history are
        queries = user[:, None] * width + items
        found = np.searchsorted(keys, queries)
        return (keys[np.minimum(found, len(keys) - 1)] == queries) & (items >= 0)


class MappedHistory(History):
    """A `History` in files; it is pickled as its path."""

    path: Path

    def __init__(self, path: Path) -> None:
        super().__init__(*(np.load(path / f"{name}.npy", mmap_mode="r") for name in _ARRAYS))
        object.__setattr__(self, "path", path)

    def owner(self, user: int) -> str:
        """Describe a user, or an item with its attributes, by its original id."""
        name = "item" if self.path.name == ATTRIBUTES else "user"
        return f"{name} {read_original_id(self.path.parents[1], f'{name}_id', user)!r}"

    def __reduce__(self) -> tuple[type[MappedHistory], tuple[Path]]:
        return MappedHistory, (self.path,)


def history_path(folder: Path | str, split: str) -> Path:
    """Return the folder of the histories of a split, or of the attributes of items, in a prepared folder."""
    return Path(folder) / "history" / split


def write_history(pairs: Iterable[tuple[np.ndarray, np.ndarray]], users: int, rows: int, path: Path) -> None:
    """Write the histories of all users.

    Args:
        pairs: Users and items, in order of user, then item, in parts of any length.
        users: The number of users.
        rows: The number of pairs.
        path: The folder to create.
    """
    path.mkdir(parents=True)
    counts = np.zeros(users + 1, dtype=np.int64)
    header = {"descr": "<i8", "fortran_order": False, "shape": (rows,)}
    with (path / "items.npy").open("wb") as file:  # not a mapped file: on a full disk, writing to one kills the process
        np.lib.format.write_array_header_1_0(file, header)
        for user, item in pairs:
            if len(user):  # the users of a part are few and adjacent
                own = np.bincount(user - user[0])
                counts[user[0] + 1 :][: len(own)] += own
            file.write(np.ascontiguousarray(item, "<i8").data)
    np.save(path / "offsets.npy", np.cumsum(counts))
