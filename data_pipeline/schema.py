"""What a prepared data set holds: ``schema.json``, beside the Parquet shards it describes.

Layout of a prepared folder::

    schema.json                  this file's `Schema`
    report.json                  what was read, dropped and why; Table 1 figures
    ids/<table>.parquet          id (int64), original_id: one file per id table
    categories/<column>.parquet  id, original_id, a column per kind of category (int, string or list<string>): what raw
                                 data know of ids beside the rows, for scores, pictures and graphs. Ids
                                 without any are left out. Synthetic data: category_1, … (fine first)
    train/part-00000.parquet     columns: every categorical (int64, or list<int64>), every dense and the label, if there
                                 is one (float32); request_id (int64), if rows belong to requests, each of one user
    validation/…  test/…         the same columns, sorted by user id; of implicit feedback also the candidates to rank.
                                 A given split may have no validation
    history/<split>/…            of implicit feedback: the items of every user (see `data_pipeline.history`)
    history/attributes/…         likewise the attributes of every item seen in training: its categories, numbered; what
                                 the numbers mean is in ids/attributes.parquet
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from data_pipeline.errors import DataError
from data_pipeline.json_files import write_json

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
CANDIDATES, ATTRIBUTES = "candidates", "attributes"
REQUEST = "request_id"  # column (int64, 0 .. requests-1 over all splits): which request a row was shown in

LIST, OWNER, INPUT, TARGET = "list_id", "owner_id", "input", "target"  # columns of data whose rows are lists of items

Role = Literal["user", "item", "feature"]


@dataclass(frozen=True)
class Categorical:
    """A column of encoded ids.

    Ids seen in training are ``0 .. num_seen-1``; ids that occur only in validation or test follow them, up to
    ``num_ids-1``, so that the original id of every row can be recovered. For look-up, every id that training never saw
    becomes the one reserved row ``num_seen``.
    """

    name: str
    num_ids: int
    num_seen: int
    role: Role = "feature"
    sequence: bool = False  # a list of ids per row: a history
    table: str = ""  # the id table it draws from; empty means its own name
    max_length: int = 0  # of a sequence, over all splits; 0 where it is not known

    @property
    def table_name(self) -> str:
        return self.table or self.name

    @property
    def num_rows(self) -> int:
        """Rows of the embedding table: the ids of training and the reserved row."""
        return self.num_seen + 1


@dataclass(frozen=True)
class Dense:
    """A column of real numbers. Batches hold ``(x - mean) / std``, with moments of the training split."""

    name: str
    mean: float
    std: float


@dataclass(frozen=True)
class Split:
    rows: int
    files: tuple[str, ...]  # relative to the folder of schema.json


@dataclass(frozen=True)
class Schema:
    """The columns and files of a prepared folder; `implicit`: rows are positives alone, each user-item pair once."""

    name: str
    label: str | None  # None: rows have none, as lists to be continued
    categorical: tuple[Categorical, ...]
    dense: tuple[Dense, ...]
    splits: dict[str, Split]
    implicit: bool = False
    candidates: Categorical | None = None  # a list a row of validation and test: the row's item, then others
    attributes: dict[str, int] = field(default_factory=dict)  # of the items' graph: how many there are of each kind
    requests: int = 0  # distinct values of the column `REQUEST` over all splits; 0: the data have no such column
    format_version: int = FORMAT_VERSION

    def entity(self, role: Literal["user", "item"]) -> Categorical:
        """The column with this role: of one id per row, or else the first sequence.

        Raises:
            DataError: there is none.
        """
        for column in sorted(self.categorical, key=lambda column: column.sequence):
            if column.role == role:
                return column
        raise DataError(f"{self.name}: schema.json has no column with the role {role}. Prepare the data again.")

    @property
    def longest_target(self) -> int | None:
        """Items of the longest list to be predicted, 1 where rows are continued by their next item; None without."""
        return next((column.max_length for column in self.categorical if column.name == TARGET), None)

    def has_split(self, split: str) -> bool:
        """Tell whether the data have a split; a given split may have been prepared without validation."""
        return split in self.splits

    def require_split(self, split: str) -> None:
        """Raise a `DataError` when the data do not have a split."""
        if not self.has_split(split):
            raise DataError(
                f"split = {split}: the data {self.name} have no such split; allowed: {', '.join(self.splits)}."
                " Rows for validation can be taken from training when the data are prepared:"
                " data.validation=leave_one_out, or ratio"
            )

    def save(self, folder: Path) -> None:
        write_json(folder / "schema.json", asdict(self))

    @classmethod
    def load(cls, folder: Path | str) -> Schema:
        """Read ``folder/schema.json``.

        Raises:
            DataError: when the file is missing, is not a schema, or is of another format version.
        """
        path = Path(folder) / "schema.json"
        if not path.is_file():
            raise DataError(
                f"{path}: no such file. Prepare the data first: python launch/prepare.py data=NAME output={folder}"
            )
        try:
            schema = TypeAdapter(cls).validate_json(path.read_bytes())
        except ValidationError as error:
            faults = (": ".join([*map(str, fault["loc"]), fault["msg"]]) for fault in error.errors())
            raise DataError(f"{path}: not a valid schema: {'; '.join(faults)}. Prepare the data again.") from error
        if schema.format_version != FORMAT_VERSION:
            raise DataError(
                f"{path}: format_version = {schema.format_version}, this version reads {FORMAT_VERSION}."
                " Prepare the data again."
            )
        return schema
