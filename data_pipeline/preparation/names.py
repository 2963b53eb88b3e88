"""Check the names of columns: features give their names to files, embedding tables and batch keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch.nn import ModuleDict

from data_pipeline.errors import DataError
from data_pipeline.schema import ATTRIBUTES, CANDIDATES, INPUT, OWNER, PLAYLIST, REQUEST, TARGET, WEIGHT

# Columns of the prepared files, and keys that training adds to a batch (`data_pipeline.streaming`).
INTERNAL = frozenset(
    {
        *("user_id", "item_id", "label", REQUEST, WEIGHT, CANDIDATES, ATTRIBUTES, PLAYLIST, OWNER, INPUT, TARGET),
        *("negatives", "vocabulary", "edge_item", "edge_attribute", "edge_negative", "user_block", "item_block"),
    }
)
FIRST_ORDER = "_first_order"  # ending of the name of the table with an id's scalar weight
_LONGEST = 200  # bytes, since the name is used as a file name


def check_feature_names(categorical: Sequence[str], dense: Sequence[str]) -> None:
    """Refuse names that mean something else in the prepared data or in training.

    Raises:
        DataError: A name is taken, contains characters that no file or table name can have, or occurs twice.
    """
    seen: set[str] = set()
    for name in (*categorical, *dense):
        if name.casefold() in INTERNAL:
            raise DataError(
                f"column {name!r}: the name is taken: prepared data and training use it for another column."
                " Rename the column in the files, and in data.categorical, data.lists or data.dense"
            )
        if name.casefold() in seen:
            raise DataError(
                f"column {name!r}: the name is taken by another feature (case is ignored)."
                " Name every feature once in data.categorical, data.lists and data.dense"
            )
        if not name or name.startswith("__") or any(c in "/\\" or not c.isprintable() for c in name):
            raise DataError(
                f"column {name!r}: a feature's name must not be empty, start with __ or contain a slash or a control"
                " character. Rename it"
            )
        if len(name.encode()) > _LONGEST:
            raise DataError(f"column {name!r}: a feature's name may have {_LONGEST} bytes at most. Rename it")
        seen.add(name.casefold())
    for name in categorical:
        # torch stores the tables as attributes of a ModuleDict, so none can have the name of one of its methods
        if "." in name or name.endswith(FIRST_ORDER) or hasattr(ModuleDict, name) or name == "training":
            raise DataError(
                f"column {name!r}: no embedding table can have this name: it contains a dot, ends in {FIRST_ORDER}, or"
                " is an attribute of torch modules. Rename the column in the files, and in data.categorical or"
                " data.lists"
            )


def check_roles(roles: Iterable[tuple[str, str]]) -> None:
    """Refuse a column that is named twice, and names that preparation uses itself.

    Args:
        roles: Pairs of configuration key and column.

    Raises:
        DataError: A column is named twice, for one role or two, or its name is taken.
    """
    keys: dict[str, str] = {}
    for key, name in roles:
        folded = name.casefold()
        if folded == "rowid" or folded.startswith("__"):
            raise DataError(f"column {name!r}: the name is taken: preparation uses it itself. Rename it")
        if keys.get(folded) == key:
            raise DataError(f"column {name!r}: data.{key} names it twice (case is ignored). Name every column once")
        if folded in keys:
            raise DataError(
                f"column {name!r}: data.{keys[folded]} and data.{key} both name it, and a column has one role."
                " Correct one of them, or leave it out"
            )
        keys[folded] = key
