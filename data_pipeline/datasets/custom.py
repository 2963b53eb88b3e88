"""Any interactions in CSV, JSON lines, Parquet or Arrow files."""

from dataclasses import dataclass
from pathlib import Path

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.inputs import Sources, described, find_files, with_addresses
from data_pipeline.preparation.read import Source, read_files
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.times import TimeUnit
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import Schema


@dataclass(frozen=True, kw_only=True)
class Custom(Interactions):
    """Files of one kind: CSV with a header line, JSON lines, Parquet, or Arrow.

    Attributes:
        source: paths, globs, folders and addresses; see `data_pipeline.preparation.inputs`.
        user: the column of users.
        item: the column of items.
        label: the column of labels, 0 or 1.
        rating: the column of ratings, instead of labels.
        threshold: the lowest rating with label 1.
        time: the column of times.
        time_unit: of numeric times; see `data_pipeline.preparation.times`.
        request: the column of request ids; see `data_pipeline.preparation.columns.Columns`.
        split_column: the column of splits: train, validation or test.
        categorical: columns of categorical features.
        dense: columns of dense features.

    Raises:
        DataError: columns that contradict each other.
    """

    source: Sources
    user: str
    item: str
    label: str | None = None
    rating: str | None = None
    threshold: float | None = None
    time: str | None = None
    time_unit: TimeUnit | None = None
    request: str | None = None
    split_column: str | None = None
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.columns  # noqa: B018  refuses columns that contradict each other before any file is read

    @property
    def columns(self) -> Columns:
        return Columns(
            user=self.user,
            item=self.item,
            label=self.label,
            rating=self.rating,
            threshold=self.threshold,
            time=self.time,
            time_unit=self.time_unit,
            request=self.request,
            split=self.split_column,
            categorical=tuple(self.categorical),
            dense=tuple(self.dense),
        )

    def read(self, workspace: Workspace) -> Source:
        files = find_files(self.source, workspace)
        return read_files(workspace, files, self.columns.raw(), self.on_invalid, described(self.source))

    def prepare(self, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
        try:
            return super().prepare(workspace, folder, name)
        except DataError as error:
            raise DataError(with_addresses(str(error), workspace)) from error
