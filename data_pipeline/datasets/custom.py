"""Any interactions in CSV, JSON lines, Parquet or Arrow files."""

from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import ITEM, Columns
from data_pipeline.preparation.dense import DenseSettings
from data_pipeline.preparation.formats import kind_of
from data_pipeline.preparation.inputs import Parts, Sources, check_parts, described_parts, find_parts, with_addresses
from data_pipeline.preparation.interactions import InteractionRules
from data_pipeline.preparation.item_categories import read_item_categories
from data_pipeline.preparation.lists import LIST_SEPARATOR, ListColumns
from data_pipeline.preparation.rare import HASH_BUCKETS, Rare, rare_rules
from data_pipeline.preparation.read import Source, read_files
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.times import TimeUnit
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import Schema
from data_pipeline.types import PositiveInt

_PART = "part of a ready-made split"  # the name of a column that no file has


@dataclass(frozen=True, kw_only=True)
class Custom(Interactions):
    """Files of one kind: CSV with a header line, JSON lines, Parquet, or Arrow.

    Attributes:
        source: Paths, globs, folders and addresses; see `data_pipeline.preparation.inputs`. None: the next three name
            the files.
        train: The files of a ready-made split.
        validation_file: The validation files of that split; may be None.
        test: Test files of the split.
        user: The column of users.
        item: The column of items.
        label: The column of labels, 0 or 1, or several such columns.
        rating: The column of ratings, instead of labels.
        threshold: The lowest rating with label 1.
        time: The column of times.
        time_unit: Unit of numeric times; see `data_pipeline.preparation.times`.
        request: The column of request ids; see `data_pipeline.preparation.columns.Columns`.
        weight: The column of sample weights; see `data_pipeline.preparation.columns.Columns`.
        split_column: The column of splits: train, validation or test.
        categorical: Columns of categorical features.
        dense: Columns of dense features.
        lists: Columns with a list of ids per row; see `data_pipeline.preparation.lists.ListColumns`.
        list_vocabularies: For a column of lists, the column whose ids it has.
        list_separator: Separator of the entries of a list in text.
        list_length: The greatest number of entries of a list, the last ones; None: all.
        dense_transforms: How they are transformed, by column; see `data_pipeline.preparation.dense.DenseSettings`.
        min_count: Minimum number of training rows for an id to get its own table row: for all id columns, or by column.
        rare: What ids below it have: "oov", the row of unseen ids, or "hash", the row of their hash bucket.
        hash_buckets: Buckets of every column with a least count.
        categories: A file of items and their categories; see `data_pipeline.preparation.item_categories`.

    Raises:
        DataError: Columns, or files, that contradict each other.
    """

    source: Sources | None
    train: Sources | None = None
    validation_file: Sources | None = None
    test: Sources | None = None
    user: str
    item: str
    label: str | tuple[str, ...] | None = None
    rating: str | None = None
    threshold: float | None = None
    time: str | None = None
    time_unit: TimeUnit | None = None
    request: str | None = None
    weight: str | None = None
    split_column: str | None = None
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    list_vocabularies: dict[str, str] | None = None
    list_separator: str = LIST_SEPARATOR
    list_length: PositiveInt | None = None
    dense_transforms: dict[str, DenseSettings] | None = None
    min_count: PositiveInt | dict[str, PositiveInt] | None = None
    rare: Rare = "oov"
    hash_buckets: PositiveInt = HASH_BUCKETS
    categories: str | None = None

    def __post_init__(self) -> None:
        check_parts("source", self.source, self._parts)
        if self.source is None and self.split_column is not None:
            raise DataError(
                f"data.split_column = {self.split_column}: the files of a ready-made split are given by data.train and"
                " data.test. Set data.split_column=null"
            )
        self.columns  # noqa: B018  refuses columns that contradict each other before any file is read

    @property
    def _parts(self) -> Parts:
        return {"train": self.train, "validation": self.validation_file, "test": self.test}

    @property
    def _lists(self) -> ListColumns:
        return ListColumns(self.lists, self.list_vocabularies or {}, self.list_separator, self.list_length)

    @property
    def columns(self) -> Columns:
        labels = (self.label,) if isinstance(self.label, str) else self.label or ()
        if self.label is not None and not labels:
            raise DataError(
                "data.label = []: names no column. Give one or several, or null where every row is a positive"
            )
        return Columns(
            user=self.user,
            item=self.item,
            label=labels[0] if labels else None,
            further_labels=labels[1:],
            rating=self.rating,
            threshold=self.threshold,
            time=self.time,
            time_unit=self.time_unit,
            request=self.request,
            weight=self.weight,
            split=_PART if self.source is None else self.split_column,
            categorical=tuple(self.categorical),
            dense=tuple(self.dense),
            lists=self._lists,
            nullable=tuple(name for name, each in (self.dense_transforms or {}).items() if each.may_miss),
        )

    @property
    def rules(self) -> InteractionRules:
        rules = super().rules
        rare = rare_rules(self.columns, self.min_count, self.rare, self.hash_buckets, rules.implicit)
        transforms = self.dense_transforms or {}
        for name in transforms:
            if name not in self.dense:
                known = ", ".join(self.dense) or "which is empty"
                raise DataError(f"data.dense_transforms.{name}: no such column in data.dense, {known}")
        if transforms and self.sequences is not None:
            raise DataError("data.dense_transforms: sequences have no dense columns. Leave it out")
        return replace(rules, rare=rare, dense=transforms)

    def read(self, workspace: Workspace) -> Source:
        parts = find_parts(self.source, self._parts, workspace)
        files = [file for each in parts.values() for file in each]
        if len({kind_of(file) for file in files}) > 1:
            raise DataError("data.train, data.validation_file and data.test: files of several kinds. Use one kind")
        columns = [name for name in self.columns.raw() if name != _PART]
        described = described_parts(self.source, self._parts)
        split = {file: part for part, each in parts.items() for file in each}
        added = {_PART: split} if self.source is None else {}
        source = read_files(workspace, files, columns, self.on_invalid, described, added)
        if self.categories is not None:
            source.categories[ITEM] = read_item_categories(workspace, self.categories, self.item, self.on_invalid)
        return source

    def prepare(self, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
        try:
            return super().prepare(workspace, folder, name)
        except DataError as error:
            raise DataError(with_addresses(str(error), workspace)) from error
