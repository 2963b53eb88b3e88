"""Any interactions in CSV or Parquet files."""

from dataclasses import dataclass

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.read import Source, find_files, read_files
from data_pipeline.preparation.times import TimeUnit
from data_pipeline.preparation.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Custom(Interactions):
    """CSV files with a header line (delimited by comma, tab, semicolon or bar; plain or .gz), or Parquet files.

    Attributes:
        source: a path or a glob.
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

    source: str
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
        return read_files(workspace, find_files(self.source), self.columns.raw(), self.on_invalid, self.source)
