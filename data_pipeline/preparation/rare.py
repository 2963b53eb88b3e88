"""The minimum number of training rows for an id to get its own table row, and the rows of ids below it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import Columns

Rare = Literal["oov", "hash"]


@dataclass(frozen=True)
class RareRule:
    """The rule of one column.

    Attributes:
        min_count: Minimum number of training rows for an id to get its own row.
        buckets: Hash buckets that the others share (see `data_pipeline.rare_ids`); 0: they share one row.
    """

    min_count: int = 1
    buckets: int = 0


KEEP_ALL = RareRule()
HASH_BUCKETS = 1000  # unless set otherwise


def rare_rules(
    columns: Columns, min_count: int | Mapping[str, int] | None, rare: Rare, hash_buckets: int, implicit: bool
) -> dict[str, RareRule]:
    """Return the rules by prepared column; columns without a rule keep every id of training.

    Args:
        columns: The meaning of the raw columns.
        min_count: For all columns of ids, or by raw column.
        rare: What ids below the least count have.
        hash_buckets: Number of buckets of each such column.
        implicit: Whether the data are implicit feedback.

    Raises:
        DataError: The settings contradict each other, or name a column that has no ids.
    """
    if rare != "hash" and hash_buckets != HASH_BUCKETS:
        raise DataError(f"data.hash_buckets = {hash_buckets}: does nothing without data.rare=hash. Leave it out")
    if min_count is None:
        if rare == "hash":
            raise DataError(
                "data.rare = hash: needs data.min_count, below which ids share buckets: without it no training row"
                " would reach a bucket. Set it, or data.rare=oov"
            )
        return {}
    if implicit:
        raise DataError(
            f"data.min_count = {min_count}: implicit feedback has data.core, which leaves rare users and items out. Set"
            " data.core, and data.min_count=null"
        )
    prepared = columns.vocabularies
    counts = {name: min_count for name in prepared} if isinstance(min_count, int) else dict(min_count)
    for name in counts:
        if name not in prepared:
            raise DataError(f"data.min_count: {name!r} is no column of ids; allowed: {', '.join(prepared)}")
    if all(count == 1 for count in counts.values()):
        raise DataError(f"data.min_count = {min_count}: leaves every id of training its row. Set 2 or more, or null")
    buckets = hash_buckets if rare == "hash" else 0
    return {prepared[name]: RareRule(count, buckets) for name, count in counts.items() if count > 1}
