"""The schema of a prepared folder: ``schema.json``, which describes its Parquet shards.

Layout of a prepared folder::

    schema.json                  this file's `Schema`
    report.json                  what was read, dropped and why; the counts of the paper's Table 1
    ids/<table>.parquet          id (int64), original_id, of tables with hash buckets also row: one file per id table
    categories/<column>.parquet  id, original_id, a column per kind of category (int, string or list<string>): known
                                 categories of ids, for scores, pictures and graphs. Ids without any are left out.
                                 Synthetic data: category_1, … (fine first)
    train/part-00000.parquet     columns: every categorical (int64, or list<int64>), every dense and the label, if there
                                 is one (float32); request_id (int64), if rows belong to requests, each of one user;
                                 sample_weight (float32), if rows have weights
    validation/…  test/…         the same columns, sorted by user id; for implicit feedback also the candidates to rank.
                                 A data set with its own split may have no validation
    history/<split>/…            for implicit feedback: the items of every user (see `data_pipeline.history`)
    history/attributes/…         for implicit feedback: the attributes of every item seen in training, which are its
                                 categories, numbered as in ids/attributes.parquet

The rows of some data sets are *sequences*: an ``input`` and a ``target``, both lists of items. They are cut from
*playlists* (lists of items that users made) or from *interaction histories* (the items of a user in order of time).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from data_pipeline.dense import Bins, Dense
from data_pipeline.digests import FileDigest
from data_pipeline.errors import DataError
from data_pipeline.json_files import write_json

FORMAT_VERSION = 1
SPLITS = ("train", "validation", "test")
CANDIDATES, ATTRIBUTES = "candidates", "attributes"
TITLE = "title"  # a column of ``categories/`` that names an id; it is no category
REQUEST = "request_id"  # column (int64, 0 .. requests-1 over all splits): which request a row was shown in
WEIGHT = "sample_weight"  # column (float32, at least 0): weight of a row in the loss

INPUT, TARGET = "input", "target"  # columns (list<int64>) of data whose rows are sequences
PLAYLIST, OWNER = "playlist_id", "owner_id"  # columns of playlists: the playlist, and who made it

Role = Literal["user", "item", "feature"]
Entity = Literal["user", "item"]
ENTITIES: tuple[Entity, ...] = ("user", "item")
OTHER_ENTITY: dict[Entity, Entity] = {"user": "item", "item": "user"}


def category_kinds(columns: Iterable[str]) -> list[str]:
    """Return the kinds of category among the columns of a file of ``categories/``.

    Example:
        >>> category_kinds(["id", "original_id", "title", "genre", "year"])
        ['genre', 'year']
    """
    return [name for name in columns if name not in ("id", "original_id", TITLE)]


@dataclass(frozen=True)
class Categorical:
    """A column of encoded ids.

    Ids seen in training are ``0 .. num_seen-1``; unseen ids, which occur only in validation or test, follow them, up to
    ``num_ids-1``, so that the original id of every row can be recovered. In an embedding table every unseen id has the
    out-of-vocabulary row ``num_seen``. Ids that are too rare in training count as unseen. With hash buckets, unseen ids
    have the rows from ``num_seen`` on, by `data_pipeline.rare_ids`. Kept ids, of earlier data (``data.keep_ids``), have
    a table row but no training row; they are the last of the seen ones.

    Attributes:
        name: Name of the column.
        num_ids: Ids of all splits.
        num_seen: Ids seen in training, as often as preparation requires, and kept ids.
        role: Whether it is the user, the item or a feature.
        sequence: Whether a row has a list of ids, the oldest first.
        table: Name of its id table, where it is not that of the column. Columns of a table share its ids.
        max_length: Greatest number of ids of a row, over all splits; 0 where it is unknown.
        buckets: Hash buckets of unseen ids; 0: they share one row.
        bins: Quantile bins of a column of real numbers, whose original ids are the bins; None: of other columns.
        kept: How many of the seen ids are kept from earlier data and are in no training row.
    """

    name: str
    num_ids: int
    num_seen: int
    role: Role = "feature"
    sequence: bool = False
    table: str = ""
    max_length: int = 0
    buckets: int = 0
    bins: Bins | None = None
    kept: int = 0

    @property
    def table_name(self) -> str:
        """Name of the id table, and of the embedding table."""
        return self.table or self.name

    @property
    def num_trained(self) -> int:
        """Ids with training rows: ``0 .. num_trained-1``; all seen ids but the kept ones."""
        return self.num_seen - self.kept

    @property
    def num_rows(self) -> int:
        """Rows of the embedding table: the seen ids and the out-of-vocabulary row, or the buckets."""
        return self.num_seen + max(1, self.buckets)


@dataclass(frozen=True)
class Split:
    """The files of one split, and the number of their rows."""

    rows: int
    files: tuple[str, ...]  # relative to the folder of schema.json


@dataclass(frozen=True)
class Schema:
    """The columns and files of a prepared folder.

    Attributes:
        name: Name of the data set.
        label: The column of labels; None where rows have none, as sequences.
        labels: Of data with several labels, the column of each label by name, that of `label` first; else empty.
        learned: Columns of labels of which batches have one each, ``[B, T]``. Only training sets it, never a file.
        categorical: Columns of encoded ids.
        dense: Columns of real numbers.
        splits: Files by split.
        implicit: Whether all rows are positives, each user-item pair once.
        candidates: A list of items per row of validation and test: the row's item, then others; None without.
        attributes: The number of attributes of items of each kind, for graphs.
        requests: Distinct values of the column `REQUEST` over all splits; 0 without such a column.
        list_separator: Separator of the entries of columns of lists in text; None without such columns.
        weight: The column of sample weights, finite and at least 0; None where every row counts the same.
        stored: The Arrow type of columns that are stored otherwise than ids (int64) and real numbers (float32) are.
        described: Whether only this schema was written for files that are somebody else's; they are never removed.
        digests: Digests of all other files of the folder except report.json, by name; empty in folders that preparation
            did not write, whose files are not checked.
        format_version: Version of the format of the prepared folder.

    Example:
        >>> schema = Schema.load("data/movielens_100k")
        >>> schema.entity("item").num_seen, schema.splits["train"].rows
    """

    name: str
    label: str | None
    categorical: tuple[Categorical, ...]
    dense: tuple[Dense, ...]
    splits: dict[str, Split]
    implicit: bool = False
    candidates: Categorical | None = None
    attributes: dict[str, int] = field(default_factory=dict)
    requests: int = 0
    list_separator: str | None = None
    weight: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    learned: tuple[str, ...] = ()
    stored: dict[str, str] = field(default_factory=dict)
    described: bool = False
    digests: dict[str, FileDigest] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def entity(self, role: Entity) -> Categorical:
        """Return the column with this role and one id per row, or else the first with a list of ids.

        Raises:
            DataError: No column has the role.
        """
        for column in sorted(self.categorical, key=lambda column: column.sequence):
            if column.role == role:
                return column
        raise DataError(f"{self.name}: schema.json has no column with the role {role}. Prepare the data again")

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns of labels that batches have."""
        return self.learned or (() if self.label is None else (self.label,))

    def learning(self, names: Sequence[str]) -> Schema:
        """Return the schema whose batches have the labels of these names: ``[B]`` for one, ``[B, T]`` for several."""
        columns = tuple(self.labels[name] for name in names)
        return replace(self, label=columns[0], learned=columns if len(columns) > 1 else ())

    @property
    def longest_target(self) -> int | None:
        """Items of the longest target: 1 for next-item prediction, None where rows are not sequences."""
        return next((column.max_length for column in self.categorical if column.name == TARGET), None)

    def has_split(self, split: str) -> bool:
        """Return whether the data have a split; a data set with its own split may have no validation."""
        return split in self.splits

    def require_split(self, split: str) -> None:
        """Raise `DataError` when the data do not have a split."""
        if not self.has_split(split):
            raise DataError(
                f"split = {split}: data set {self.name!r} has no such split; allowed: {', '.join(self.splits)}."
                " Validation rows can be taken from training when the data are prepared, by"
                " data.validation=leave_one_out or ratio"
            )

    def save(self, folder: Path) -> None:
        """Write ``folder/schema.json``."""
        write_json(folder / "schema.json", asdict(self))

    @classmethod
    def load(cls, folder: Path | str) -> Schema:
        """Read ``folder/schema.json``.

        Raises:
            DataError: The file is missing, is not a schema, has another format version, or names a file outside the
                folder.
        """
        path = Path(folder) / "schema.json"
        if not path.is_file():
            raise DataError(f"{path}: no such file. Prepare the data first: cove prepare data=NAME output={folder}")
        try:
            schema = _validator().validate_json(path.read_bytes().decode())
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not a valid schema: {error}. Prepare the data again") from error
        except ValidationError as error:
            faults = (": ".join([*map(str, fault["loc"]), fault["msg"]]) for fault in error.errors())
            raise DataError(f"{path}: not a valid schema: {'; '.join(faults)}. Prepare the data again") from error
        if schema.format_version != FORMAT_VERSION:
            raise DataError(
                f"{path}: format_version = {schema.format_version}, but only {FORMAT_VERSION} can be read."
                " Prepare the data again"
            )
        for name in [*schema.digests, *(file for split in schema.splits.values() for file in split.files)]:
            _require_inside(path, name)
        return schema


@cache
def _validator() -> TypeAdapter[Schema]:
    """Return what reads a schema; building it takes longer than reading one."""
    return TypeAdapter(Schema)


def _require_inside(path: Path, name: str) -> None:
    """Refuse the name of a file that is not in the folder of ``schema.json``, also by way of a symbolic link.

    Raises:
        DataError: The name is absolute, has ``..``, or the file is elsewhere.
    """
    parts, folder = PurePosixPath(name), path.parent.resolve()
    if (
        "\0" in name
        or parts.is_absolute()
        or ".." in parts.parts
        or not (folder / name).resolve().is_relative_to(folder)
    ):
        raise DataError(f"{path}: names the file {name!r}, which is outside its folder. Prepare the data again")
