"""The sequences of users in prepared data.

Shapes: ``n`` users.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cove_dist.errors import ConfigError
from data_pipeline.schema import INPUT, OWNER, SPLITS, TARGET, Categorical, Schema


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


def read_user_sequences(folder: Path, schema: Schema, users: np.ndarray, owner: Categorical | None) -> UserSequences:
    """Read the sequences of users, each the input of a row and then its target.

    Args:
        folder: Prepared folder.
        schema: Its schema.
        users: Encoded users ``[n]``.
        owner: Column of the owners, if the model reads them.

    Raises:
        ConfigError: The data have no sequence of a user.
    """
    import pyarrow.dataset as ds

    user, item = schema.entity("user").name, schema.entity("item")
    columns = [user, INPUT, TARGET, *([OWNER] if owner else [])]
    sequences: dict[int, list[np.ndarray]] = defaultdict(list)
    newest: dict[int, np.ndarray] = {}
    owners: dict[int, int] = {}
    for split in (name for name in SPLITS if schema.has_split(name)):  # the later split has the newer items
        files = [str(folder / name) for name in schema.splits[split].files]
        rows = ds.dataset(files).to_table(columns=columns, filter=ds.field(user).isin(pa.array(users))).to_pydict()
        of_split: dict[int, list[np.ndarray]] = defaultdict(list)
        for who, first, last in zip(rows[user], rows[INPUT], rows[TARGET], strict=True):
            of_split[who].append(np.minimum([*first, *last], item.num_seen))
        for who, found in of_split.items():
            sequences[who] += found
            newest[who] = _newest(found)
        owners |= dict(zip(rows[user], rows[OWNER], strict=True)) if owner else {}
    wanted = users.tolist()
    if missing := sum(who not in newest for who in wanted):
        raise ConfigError(f"users: the data have no sequence of {missing} of them; give sequences")
    return UserSequences(
        newest=[newest[who] for who in wanted],
        items=[np.unique(np.concatenate(sequences[who])) for who in wanted],
        owners=np.minimum([owners[who] for who in wanted], owner.num_seen) if owner else None,
    )


def _newest(sequences: list[np.ndarray]) -> np.ndarray:
    """Return the newest sequence of a user in a split, in which the training rows of a user are in no order.

    A sequence begins with the last item of the one before it, so no other begins where the newest ends. If items
    repeat so that this is true of several or none, the last of them is taken.
    """
    begins = [each[0] for each in sequences]
    ends = [each for at, each in enumerate(sequences) if each[-1] not in begins[:at] + begins[at + 1 :]]
    return (ends or sequences)[-1]
