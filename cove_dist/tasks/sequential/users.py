"""The sequences of users in prepared data.

Shapes: ``n`` users.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cove_dist.errors import ConfigError
from data_pipeline.schema import INPUT, OWNER, SPLITS, TARGET, Categorical, Schema, Split
from data_pipeline.streaming.blocks import ranges


class UserSequences(NamedTuple):
    """Sequences of encoded items of users ``[n]``.

    Attributes:
        newest: The newest sequence of each user, in the latest split that has one.
        items: The distinct items of each user, in all sequences of all splits.
        owners: Table rows of the users' owners, int64 ``[n]``; None unless they were requested.
    """

    newest: list[np.ndarray]
    items: list[np.ndarray]
    owners: np.ndarray | None


class StoredSequences:
    """The sequences of users, each the input of a row and then its target: one pass over the splits for many requests.

    Memory: 8 bytes per item of the sequences.

    Args:
        folder: Prepared folder.
        schema: Its schema.
        users: Encoded users who may be requested.
        owner: Column of the owners, if the model reads them.
    """

    def __init__(self, folder: Path, schema: Schema, users: np.ndarray, owner: Categorical | None) -> None:
        self._owner, self._num_seen = owner, schema.entity("item").num_seen
        columns = [schema.entity("user").name, INPUT, TARGET, *([OWNER] if owner else [])]
        splits = [schema.splits[name] for name in SPLITS if schema.has_split(name)]  # the later one has newer items
        self._splits = [_read(folder, split, columns, users) for split in splits]

    def of(self, users: np.ndarray) -> UserSequences:
        """Return the sequences of users ``[n]``.

        Raises:
            ConfigError: The data have no sequence of a user.
        """
        rows_of = [split.rows_of(users) for split in self._splits]
        newest, items, owners = [], [], []
        for rows in zip(*rows_of, strict=True):  # the rows of a user in every split
            found = [(split, each) for split, each in zip(self._splits, rows, strict=True) if len(each)]
            if not found:
                continue
            sequences = [[np.minimum(each, self._num_seen) for each in split.lists(rows)] for split, rows in found]
            newest.append(_newest(sequences[-1]))
            items.append(np.unique(np.concatenate([each for of_split in sequences for each in of_split])))
            split, last = found[-1]
            owners += [split.owners[last[-1]]] if split.owners is not None else []
        if missing := len(users) - len(newest):
            raise ConfigError(f"users: the data have no sequence of {missing} of them; give sequences")
        return UserSequences(newest, items, np.minimum(owners, self._owner.num_seen) if self._owner else None)


class _Split(NamedTuple):
    """The sequences of requested users in a split, in order of users, else in that of the rows.

    Attributes:
        users: User of every sequence.
        starts, lengths: Where its items are in `values`, and how many.
        values: Encoded items.
        owners: Owner of every sequence; None unless they were requested.
    """

    users: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    values: np.ndarray
    owners: np.ndarray | None

    def rows_of(self, users: np.ndarray) -> list[range]:
        """Return the sequences of each user."""
        first, stop = (np.searchsorted(self.users, users, side).tolist() for side in ("left", "right"))
        return list(map(range, first, stop))

    def lists(self, rows: range) -> list[np.ndarray]:
        return [self.values[self.starts[row] : self.starts[row] + self.lengths[row]] for row in rows]


def _read(folder: Path, split: Split, columns: Sequence[str], users: np.ndarray) -> _Split:
    """Read the rows of users: columns of user, input, target and, if requested, owner."""
    import pyarrow.dataset as ds

    user, inputs, targets, *owner = columns
    wanted = ds.field(user).isin(pa.array(users))
    values, parts = [np.empty(0, np.int64)], [np.empty((2 + len(owner), 0), np.int64)]
    for batch in ds.dataset([str(folder / name) for name in split.files]).to_batches(columns=columns, filter=wanted):
        joined, lengths = _joined(batch[inputs], batch[targets])
        values.append(joined)
        parts.append(np.stack([batch[user], lengths, *(batch[name] for name in owner)]).astype(np.int64))
    who, lengths, *owners = np.concatenate(parts, axis=1)
    order = np.argsort(who, kind="stable")
    starts = np.cumsum(lengths) - lengths
    of_owners = owners[0][order] if owner else None
    return _Split(who[order], starts[order], lengths[order], np.concatenate(values), of_owners)


def _joined(first: pa.Array, then: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return for every row its first list and then its other one: int64 values, list after list, and lengths."""
    lengths = [each.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64) for each in (first, then)]
    total = lengths[0] + lengths[1]
    starts = np.cumsum(total) - total
    values = np.empty(total.sum(), np.int64)
    for column, begin, count in zip((first, then), (starts, starts + lengths[0]), lengths, strict=True):
        values[ranges(begin, count)] = column.flatten().to_numpy(zero_copy_only=False)
    return values, total


def _newest(sequences: list[np.ndarray]) -> np.ndarray:
    """Return the newest sequence of a user in a split, in which the training rows of a user are in no order.

    A sequence begins with the last item of the one before it, so no other begins where the newest ends. If items
    repeat so that this is true of several or none, the last of them is taken.
    """
    begins = [each[0] for each in sequences]
    ends = [each for at, each in enumerate(sequences) if each[-1] not in begins[:at] + begins[at + 1 :]]
    return (ends or sequences)[-1]
