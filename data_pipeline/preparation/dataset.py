"""What `data_pipeline.preparation.prepare` needs from a data set."""

# No `from __future__ import annotations` here and in the data sets: their keys are checked against the annotations.
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.delimited import OnInvalid
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import Schema
from data_pipeline.types import PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class Dataset(ABC):  # noqa: B024  (abstract by what its two subclasses require)
    """What ``cove prepare`` makes a prepared folder of. Its fields are the keys of ``configs/data/<name>.yaml``."""

    def output(self, requested: str | None, default: str) -> Path:
        """Return the folder to write.

        Args:
            requested: The setting ``output``.
            default: The setting ``data.path``.
        """
        return Path(requested or default)


@dataclass(frozen=True, kw_only=True)
class EncodedDataset(Dataset):
    """Files that are prepared already, except for ``schema.json``."""

    @abstractmethod
    def describe(self, output: Path, name: str, overwrite: bool, on_progress: Callable[[str], None]) -> Schema:
        """Check the files and write what is missing of the prepared folder."""


@dataclass(frozen=True, kw_only=True)
class RawDataset(Dataset):
    """Raw files of one data set.

    Attributes:
        ratios: Train : validation : test, for the splits that use ratios.
        on_invalid: Treatment of rows that break a rule: "error" refuses the data, "drop" leaves the rows out and
            counts them in the report.
        row_group_size: Rows of a Parquet row group, the unit that ranks share; small splits get smaller ones.
        memory_gb: Memory for DuckDB in GB; larger tables go to disk.
        keep_ids: A prepared folder whose ids of training keep table rows (see `data_pipeline.preparation.kept`).
        published: Counts that the publisher states, by name (users, items, interactions, samples or sequences). Other
            counts are logged as a warning.
    """

    ratios: tuple[PositiveInt, PositiveInt, PositiveInt] = (8, 1, 1)
    on_invalid: OnInvalid = "error"
    row_group_size: PositiveInt = 65_536
    memory_gb: PositiveFloat = 2.0
    keep_ids: str | None = None
    published: ClassVar[dict[str, int]] = {}

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """The meaning of the columns of ``raw``."""

    @abstractmethod
    def read(self, workspace: Workspace) -> Source:
        """Create the table ``raw``: the columns named in `columns`, and the file of each row as ``__file``."""

    @abstractmethod
    def prepare(self, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
        """Read the raw rows and write all files of the prepared folder but ``schema.json`` and ``report.json``.

        Args:
            workspace: Workspace for the tables.
            folder: The prepared folder, empty.
            name: Name of the data set, for the schema.
        """
