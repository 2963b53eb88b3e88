"""Settings of data sets whose raw rows are interactions of a user with an item."""

from dataclasses import dataclass
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.preparation.dataset import RawDataset
from data_pipeline.preparation.interactions import InteractionRules, prepare_interactions
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.saturation import SaturatedUsers
from data_pipeline.preparation.sequences import prepare_sequences
from data_pipeline.preparation.split import SplitBy, SplitRule, Validation
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import Schema
from data_pipeline.types import NonNegativeInt, PositiveInt


@dataclass(frozen=True, kw_only=True)
class Interactions(RawDataset):
    """One raw row per interaction; a prepared row is an interaction or, with `sequences`, a sequence of items.

    Attributes:
        split: Kind of split (see `preparation.split.SplitRule`). None: ``given`` where the data set has its own
            split, else ``leave_one_out`` for implicit feedback, else ``user_time`` where there is a time column, else
            ``random``.
        validation: Source of validation rows if the data set has its own split without them (see `SplitRule`): "none",
            "leave_one_out" or "ratio".
        implicit: Keep only positives, each user-item pair once, and write interaction histories and candidates: for
            collaborative filtering. None: where the data set has no labels.
        core: For implicit feedback, keep users and items with at least this many rows. None: all.
        candidates: For implicit feedback, items to rank with each positive of validation and test. 0: none.
        saturated_users: For implicit feedback, users with too many items to draw a negative in training, or
            `candidates` in validation and test: "error" refuses the data, "drop" leaves these users out and counts
            them.
        sequences: For implicit feedback, a row is a sequence of up to this many items and the next one, for sequential
            models. None: a row is an interaction.
    """

    split: SplitBy | None = None
    validation: Validation = "none"
    implicit: bool | None = None
    core: PositiveInt | None = None
    candidates: NonNegativeInt = 99
    saturated_users: SaturatedUsers = "error"
    sequences: PositiveInt | None = None

    def prepare(self, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
        """Write the prepared rows. Settings that contradict each other are refused before a file is read."""
        self.check()
        rules = self.rules
        source = self.read(workspace)
        if self.sequences is not None:
            return prepare_sequences(workspace, source, rules, self.sequences, folder, name)
        return prepare_interactions(workspace, source, rules, folder, name)

    @property
    def rules(self) -> InteractionRules:
        """The settings with their defaults resolved."""
        return InteractionRules(
            columns=self.columns,
            split=self.split_rule,
            implicit=self.is_implicit,
            core=self.core,
            candidates=self.candidates if self.is_implicit else 0,
            saturated_users=self.saturated_users if self.is_implicit and self.sequences is None else None,
            on_invalid=self.on_invalid,
            row_group_size=self.row_group_size,
            published=self.published,
        )

    @property
    def is_implicit(self) -> bool:
        """Whether all rows are positives."""
        return self.columns.without_labels if self.implicit is None else self.implicit

    @property
    def split_by(self) -> SplitBy:
        """The kind of split."""
        if self.split is not None:
            return self.split
        if self.columns.split is not None:
            return "given"
        if self.is_implicit:
            return "leave_one_out"
        return "user_time" if self.columns.time is not None else "random"

    @property
    def uses_ratios(self) -> bool:
        """Whether rows are split by `ratios`."""
        by = self.split_by
        return self.validation == "ratio" if by == "given" else by != "leave_one_out"

    @property
    def split_rule(self) -> SplitRule:
        """The split rule."""
        return SplitRule.of(self.columns, self.split_by, self.ratios, self.is_implicit, self.validation)

    def check(self) -> None:
        """Refuse settings that contradict each other or the columns, or that do nothing.

        Raises:
            DataError: The message names the setting and what to set.
        """
        self._check_labels()
        self._check_candidates()
        if self.sequences is not None:
            self._check_sequences()
        self._check_split()

    def _check_labels(self) -> None:
        if self.implicit is False and self.columns.without_labels:
            raise DataError(
                "data.implicit = false: the data have no labels. Set data.label=COLUMN, or data.rating=COLUMN"
                " data.threshold=X, or data.implicit=true"
            )
        if self.core is not None and not self.is_implicit:
            raise DataError(
                f"data.core = {self.core}: only for implicit feedback. Set data.implicit=true, or data.core=null"
            )
        if self.is_implicit and self.columns.labels:
            raise DataError(
                f"data.implicit = true: positives are the rows whose label is 1, but data.label names"
                f" {len(self.columns.labels)} labels. Name one"
            )
        if self.is_implicit and self.columns.lists.names:
            raise DataError(
                f"columns of lists ({', '.join(self.columns.lists.names)}) are fields of click-through rate models, and"
                " implicit feedback has users and items only. Give labels, or leave the lists out"
            )

    def _check_candidates(self) -> None:
        if self.saturated_users != "error" and (self.sequences is not None or not self.is_implicit):
            raise DataError(
                f"data.saturated_users = {self.saturated_users}: only for negatives and candidates of implicit"
                " feedback, which these data do not have. Set data.saturated_users=error"
            )
        if self.candidates in (0, Interactions.candidates):
            return
        if not self.is_implicit:
            raise DataError(
                f"data.candidates = {self.candidates}: only for implicit feedback, and these data have labels. Leave it"
                " out, or set data.implicit=true"
            )
        if self.sequences is not None:
            raise DataError(
                f"data.candidates = {self.candidates}: sequences are ranked against all items. Leave it out, or set"
                " data.sequences=null"
            )

    def _check_sequences(self) -> None:
        key = f"data.sequences = {self.sequences}"
        if not self.is_implicit:
            raise DataError(f"{key}: only for implicit feedback. Set data.implicit=true, or data.sequences=null")
        if self.columns.time is None:
            raise DataError(f"{key}: needs data.time=COLUMN to order the rows of a user. Set data.sequences=null")
        if self.split_by != "leave_one_out":
            raise DataError(
                f"{key}, data.split = {self.split_by}: set data.split=leave_one_out, or data.sequences=null"
            )
        if self.columns.request is not None:
            raise DataError(
                f"{key}, data.request = {self.columns.request}: a sequence has no request. Set one of them to null"
            )
        if self.columns.weight is not None:
            raise DataError(
                f"{key}, data.weight = {self.columns.weight}: a row is a sequence, whose loss is over its items, and"
                " weights are of single interactions. Set one of them to null"
            )
        if features := (*self.columns.categorical, *self.columns.dense):
            raise DataError(
                f"{key}, further columns {', '.join(features)}: a sequence has a user and items only. Leave these"
                " columns out (data.categorical=[] data.dense=[], or data.side_information=false), or set"
                " data.sequences=null"
            )

    def _check_split(self) -> None:
        by = self.split_by
        if by == "given" and self.columns.split is None:
            raise DataError(
                "data.split = given: the data have no split of their own (custom data may, by"
                " data.split_column=COLUMN). Set user_time, time or random"
            )
        if by in ("user_time", "time") and self.columns.time is None:
            raise DataError(f"data.split = {by}: needs data.time=COLUMN. Set it, or data.split=random")
        if tuple(self.ratios) != Interactions.ratios and not self.uses_ratios:
            raise DataError(
                f"data.ratios = {list(self.ratios)}: does nothing with data.split={by}, data.validation="
                f"{self.validation}, which use no ratios. Leave it out, or set data.split=user_time, time or random"
            )
        if self.validation != "none" and by != "given":
            raise DataError(
                f"data.validation = {self.validation}: only for data.split = given; data.split = {by} makes its own"
                " validation rows. Set data.validation=none"
            )
