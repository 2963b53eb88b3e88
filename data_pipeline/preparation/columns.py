"""Which columns of the raw rows mean what."""

from __future__ import annotations

from dataclasses import dataclass

from data_pipeline.errors import DataError

USER, ITEM, LABEL = "user_id", "item_id", "label"  # names in the prepared files
TIME, ROW, SPLIT, GIVEN, FILE = "__time", "__row", "__split", "__given", "__file"  # used while preparing, not written


@dataclass(frozen=True)
class Columns:
    """Names of raw columns.

    Attributes:
        user, item: ids: whole numbers from 0, or text.
        label: 0 or 1. Either this, or `rating` with `threshold`: label 1 for rating >= threshold. With neither every
            row is a positive: implicit feedback.
        time: orders the rows: a number, a date or a timestamp.
        split: where the data set gives a split of its own: train, validation or test.
        categorical, dense: features. They keep their names.

    Raises:
        DataError: both label and rating; or a name that cannot be kept.
    """

    user: str
    item: str
    label: str | None = None
    rating: str | None = None
    threshold: float | None = None
    time: str | None = None
    split: str | None = None
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.label is not None and self.rating is not None:
            raise DataError(
                f"data.label = {self.label}, data.rating = {self.rating}: set at most one, the other null."
                " Either data.label=COLUMN of 0 and 1, or data.rating=COLUMN data.threshold=X (label 1 for rating >= X)"
                " or neither, where every row is a positive"
            )
        if (self.rating is None) != (self.threshold is None):
            raise DataError(
                f"data.rating = {self.rating}, data.threshold = {self.threshold}: set both, or neither and data.label"
            )
        if "rowid" in map(str.casefold, self.raw()):
            raise DataError("column 'rowid': the name is taken by DuckDB. Rename it")
        taken = {USER, ITEM, LABEL}
        for name in (*self.categorical, *self.dense):
            if name.casefold() in taken:
                raise DataError(
                    f"column {name!r}: the name is taken, by {USER}, {ITEM}, {LABEL} or another feature."
                    " Name every feature once in data.categorical and data.dense, under a name of its own"
                )
            if name.startswith("__") or "/" in name or "\\" in name:
                raise DataError(f"column {name!r}: a feature's name must not start with __ nor hold a slash. Rename it")
            taken.add(name.casefold())

    @property
    def without_labels(self) -> bool:
        return self.label is None and self.rating is None

    def raw(self) -> list[str]:
        """Every raw column that is read, once."""
        named = (self.user, self.item, self.label, self.rating, self.time, self.split, *self.categorical, *self.dense)
        return list(dict.fromkeys(name for name in named if name is not None))
