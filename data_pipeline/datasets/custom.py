"""Any interactions in CSV or Parquet files."""

from dataclasses import dataclass

from data_pipeline.datasets.base import Dataset
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.read import Source, find_files, read_files
from data_pipeline.preparation.times import TimeUnit
from data_pipeline.preparation.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class Custom(Dataset):
    """CSV files with a header line (delimited by comma, tab, semicolon or bar; plain or .gz), or Parquet files.

    Attributes:
        source: a path or a glob.
        split_column: `split` of the columns.
        user, item, label, rating, threshold, time, time_unit, request, categorical, dense: see
            `data_pipeline.preparation.columns.Columns`.

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
