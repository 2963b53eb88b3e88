"""What a data set tells `preparation.prepare`. Its fields are the keys of ``configs/data/<name>.yaml``."""

# Annotations are evaluated here and in the data sets: configurations are checked against them.
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.delimited import OnInvalid
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.saturation import SaturatedUsers
from data_pipeline.preparation.split import SplitBy, SplitRule, Validation
from data_pipeline.preparation.workspace import Workspace

Positive = Annotated[int, Gt(0)]


@dataclass(frozen=True, kw_only=True)
class RawData(ABC):
    """Where raw rows come from and which columns mean what.

    Attributes:
        ratios: train : validation : test, of the splits that take them.
        on_invalid: what to do with rows that break a rule: "error" refuses the data, "drop" leaves them out, counted.
        row_group_size: rows of a Parquet row group, the unit that ranks share; small splits get smaller ones.
        memory_gb: GB of memory for DuckDB, which works on disk beyond it.
        published: users, items, interactions, samples or lists as the source states them. Data that differ are warned
            of.
    """

    ratios: tuple[Positive, Positive, Positive] = (8, 1, 1)
    on_invalid: OnInvalid = "error"
    row_group_size: Positive = 65_536
    memory_gb: Annotated[float, Gt(0)] = 2.0
    published: ClassVar[dict[str, int]] = {}

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """Which columns of ``raw`` mean what."""

    @abstractmethod
    def read(self, workspace: Workspace) -> Source:
        """Create the table ``raw``: the columns of `columns`, and the name of each row's file as ``__file``."""


@dataclass(frozen=True, kw_only=True)
class Dataset(RawData):
    """Interactions, a row each.

    Attributes:
        split: how rows are split (see `preparation.split.SplitRule`). None: ``given`` where the data set gives a
            split, else ``leave_one_out`` for implicit feedback, else ``user_time`` where there is a time column, else
            ``random``.
        validation: what to do where the data set gives a split without rows for validation (see `SplitRule`): "none",
            "leave_one_out" or "ratio".
        implicit: keep positives alone, each user-item pair once, with histories and candidates beside them: for
            collaborative filtering. None: where the data set has no labels.
        core: of implicit feedback, keep users and items with at least so many rows. None: all.
        candidates: of implicit feedback, items to rank beside each positive of validation and test. 0: none.
        saturated_users: of implicit feedback, users with so many items that none are left to draw in training, or fewer
            than `candidates`: "error" refuses the data, "drop" leaves these users out, counted.
        sequences: of implicit feedback, a row a history of up to so many items and the next one, for models of lists.
            None: a row an interaction.
    """

    split: SplitBy | None = None
    validation: Validation = "none"
    implicit: bool | None = None
    core: Positive | None = None
    candidates: Annotated[int, Ge(0)] = 99
    saturated_users: SaturatedUsers = "error"
    sequences: Positive | None = None

    @property
    def is_implicit(self) -> bool:
        """Raises `DataError` for labels asked for where there are none, and a core without implicit feedback."""
        if self.implicit is False and self.columns.without_labels:
            raise DataError(
                "data.implicit = false: the data has no labels. Set data.label=COLUMN, or data.rating=COLUMN"
                " data.threshold=X, or data.implicit=true"
            )
        implicit = self.columns.without_labels if self.implicit is None else self.implicit
        if self.core is not None and not implicit:
            raise DataError(
                f"data.core = {self.core}: for implicit feedback. Set data.implicit=true, or data.core=null"
            )
        return implicit

    @property
    def split_by(self) -> SplitBy:
        """Raises `DataError` for a split by time without a time column, or a given one that is not given."""
        given, timed = self.columns.split is not None, self.columns.time is not None
        if self.split is None:
            if given or self.is_implicit:
                return "given" if given else "leave_one_out"
            return "user_time" if timed else "random"
        if self.split == "given" and not given:
            raise DataError(
                "data.split = given: the data gives none (custom data may, by data.split_column=COLUMN)."
                " Set user_time, time or random"
            )
        if self.split in ("user_time", "time") and not timed:
            raise DataError(f"data.split = {self.split}: needs data.time=COLUMN. Set it, or data.split=random")
        return self.split

    @property
    def split_rule(self) -> SplitRule:
        """Raises `DataError` where `split_by` does, and for a rule of validation where the split is not a given one."""
        by = self.split_by
        if self.validation != "none" and by != "given":
            raise DataError(
                f"data.validation = {self.validation}: for a given split; data.split = {by} makes rows for validation"
                " itself. Set data.validation=none"
            )
        return SplitRule.of(self.columns, by, self.ratios, self.is_implicit, self.validation)

    @property
    def sequence_length(self) -> int | None:
        """Raises `DataError` for histories of data that has no order, or of another split than leave one out."""
        if self.saturated_users != "error" and (self.sequences is not None or not self.is_implicit):
            raise DataError(
                f"data.saturated_users = {self.saturated_users}: for negatives and candidates of implicit feedback,"
                " which these data do not have. Set data.saturated_users=error"
            )
        if self.sequences is None:
            return None
        key = f"data.sequences = {self.sequences}"
        if not self.is_implicit:
            raise DataError(f"{key}: for implicit feedback. Set data.implicit=true, or data.sequences=null")
        if self.columns.time is None:
            raise DataError(
                f"{key}: needs the order of a user's rows, and the data has no time. Set data.sequences=null"
            )
        if self.split_by != "leave_one_out":
            raise DataError(
                f"{key}, data.split = {self.split_by}: set data.split=leave_one_out, or data.sequences=null"
            )
        if self.columns.request is not None:
            raise DataError(
                f"{key}, data.request = {self.columns.request}: rows are histories. Set one of them to null"
            )
        return self.sequences
