"""Which columns of the raw rows mean what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from data_pipeline.errors import DataError
from data_pipeline.preparation.lists import NO_LISTS, ListColumns
from data_pipeline.preparation.names import check_feature_names, check_roles
from data_pipeline.preparation.times import TimeUnit

USER, ITEM, LABEL = "user_id", "item_id", "label"  # names in the prepared files
# used during preparation, not written; `MOMENT` is the time of a row or, in a request, of its first row
TIME, MOMENT, ROW, SPLIT, GIVEN, FILE = "__time", "__moment", "__row", "__split", "__given", "__file"


@dataclass(frozen=True)
class Columns:
    """Names of raw columns.

    Attributes:
        user: User ids: whole numbers from 0, or text.
        item: Item ids: whole numbers from 0, or text.
        label: 0 or 1. Set either this, or `rating` with `threshold`. With neither every row is a positive: implicit
            feedback.
        further_labels: Further columns of 0 and 1, which keep their names.
        rating: Numbers; the label is 1 for rating >= threshold.
        threshold: The lowest rating with label 1.
        time: Order of the rows: a number, a date or a timestamp.
        time_unit: Unit of a numeric time; see `data_pipeline.preparation.times`.
        request: Id of the request in which a row was shown (an impression list, a search): the rows of one request
            belong to one user, stay in one split, and can be a group of ranking metrics.
        weight: Weight of each row in the loss: a finite number, at least 0.
        split: The split of each row where the data set has its own: train, validation or test.
        categorical: Categorical features. They keep their names.
        dense: Dense features. They keep their names.
        lists: Columns with a list of ids per row.
        nullable: Dense features whose numbers may be missing.

    Raises:
        DataError: Both label and rating are set; a column has two roles; or a feature has a name that is taken.
    """

    user: str
    item: str
    label: str | None = None
    further_labels: tuple[str, ...] = ()
    rating: str | None = None
    threshold: float | None = None
    time: str | None = None
    time_unit: TimeUnit | None = None
    request: str | None = None
    weight: str | None = None
    split: str | None = None
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    lists: ListColumns = NO_LISTS
    nullable: tuple[str, ...] = ()

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
        if self.time_unit is not None and self.time is None:
            raise DataError(
                f"data.time_unit = {self.time_unit}: needs data.time=COLUMN. Set it, or data.time_unit=null"
            )
        check_roles(self._roles())
        check_feature_names((*self.categorical, *self.lists.names), self.dense)
        check_feature_names((), self.further_labels)
        self.lists.check(self.vocabularies)

    @property
    def without_labels(self) -> bool:
        """Whether every row is a positive."""
        return self.label is None and self.rating is None

    @property
    def vocabularies(self) -> Mapping[str, str]:
        """The name in the prepared files of every column with an id per row, by its raw name."""
        return {self.user: USER, self.item: ITEM, **{name: name for name in self.categorical}}

    @property
    def labels(self) -> dict[str, str]:
        """The prepared column of each label, by its raw column, where there are several; else empty."""
        if self.label is None or not self.further_labels:
            return {}
        return {self.label: LABEL} | {name: name for name in self.further_labels}

    def raw(self) -> list[str]:
        """Return every raw column that is read."""
        return [name for _, name in self._roles()]

    def _roles(self) -> list[tuple[str, str]]:
        """Return the configuration key and the name of every named column."""
        single = {
            "user": self.user,
            "item": self.item,
            "label": self.label,
            "rating": self.rating,
            "time": self.time,
            "request": self.request,
            "weight": self.weight,
            "split_column": self.split,
        }
        named = [(role, name) for role, name in single.items() if name is not None]
        named += [("label", name) for name in self.further_labels]
        named += [("categorical", name) for name in self.categorical]
        named += [("lists", name) for name in self.lists.names]
        return named + [("dense", name) for name in self.dense]
