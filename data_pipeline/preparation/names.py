"""Names of columns that can be kept: those of features become names of files, of embedding tables and of batch keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch.nn import ModuleDict

from data_pipeline.errors import DataError
from data_pipeline.schema import ATTRIBUTES, CANDIDATES, INPUT, LIST, OWNER, REQUEST, TARGET

# Columns of the prepared files, and lists of ids that training adds to a batch (`data_pipeline.streaming`).
INTERNAL = frozenset(
    {
        *("user_id", "item_id", "label", REQUEST, CANDIDATES, ATTRIBUTES, LIST, OWNER, INPUT, TARGET),
        *("negatives", "vocabulary", "edge_item", "edge_attribute", "edge_negative", "user_block", "item_block"),
    }
)
FIRST_ORDER = "_first_order"  # ending of the table that holds an id's scalar weight
_LONGEST = 200  # bytes: the name is that of a file with an ending


def check_feature_names(categorical: Sequence[str], dense: Sequence[str]) -> None:
    """Refuse names that mean something else in the prepared data or in training.

    Raises:
        DataError: a name is taken, holds characters that no file or table name can have, or is there twice.
    """
    seen: set[str] = set()
    for name in (*categorical, *dense):
        if name.casefold() in INTERNAL:
            raise DataError(
                f"column {name!r}: the name is taken: prepared data and training use it for a column of their own."
                " Rename the column in the files, and in data.categorical or data.dense"
            )
        if name.casefold() in seen:
            raise DataError(
                f"column {name!r}: the name is taken by another feature (upper and lower case do not differ)."
                " Name every feature once in data.categorical and data.dense"
            )
        if not name or name.startswith("__") or any(c in "/\\" or not c.isprintable() for c in name):
            raise DataError(
                f"column {name!r}: a feature's name must not be empty, start with __ nor hold a slash or a control"
                " character. Rename it"
            )
        if len(name.encode()) > _LONGEST:
            raise DataError(f"column {name!r}: a feature's name may have {_LONGEST} bytes at most. Rename it")
        seen.add(name.casefold())
    for name in categorical:
        # torch keeps the tables as attributes of a ModuleDict, so none can be called like a method of it
        if "." in name or name.endswith(FIRST_ORDER) or hasattr(ModuleDict, name) or name == "training":
            raise DataError(
                f"column {name!r}: no embedding table can have this name: it holds a dot, ends in {FIRST_ORDER}, or is"
                " an attribute of torch modules. Rename the column in the files and in data.categorical"
            )


def check_roles(roles: Iterable[tuple[str, str]]) -> None:
    """Refuse a column that two keys name, and names that are taken while data are prepared.

    Args:
        roles: (key of the configuration, column).

    Raises:
        DataError: see above.
    """
    keys: dict[str, str] = {}
    for key, name in roles:
        folded = name.casefold()
        if folded == "rowid" or folded.startswith("__"):
            raise DataError(f"column {name!r}: the name is taken while data are prepared. Rename it")
        if folded in keys:
            raise DataError(
                f"column {name!r}: data.{keys[folded]} and data.{key} both name it, and a column has one role."
                " Correct one of them, or leave it out"
            )
        keys[folded] = key
