"""Parquet files of ids that somebody else's pipeline has encoded already: they are described, never copied or changed.

In a folder with the files of every split, ``schema.json``, ``report.json`` and the tables of ids are written. What
Parquet's footers and statistics tell is read from them; a column without statistics is streamed once. Rows of
validation and test must be sorted by user, since evaluation groups them by user.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.datasets.encoded_columns import check_labels, check_weights, largest_in_files
from data_pipeline.datasets.encoded_lists import is_list_of_ids, read_lists
from data_pipeline.digests import digest_file, digest_footer
from data_pipeline.errors import DataError
from data_pipeline.id_tables import FOLDER, id_table_path
from data_pipeline.parquet_files import BATCH_ROWS, write_parquet
from data_pipeline.preparation.dataset import EncodedDataset
from data_pipeline.preparation.lists import LIST_SEPARATOR, ListColumns
from data_pipeline.preparation.names import check_feature_names, check_roles
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.writer import dense_statistics
from data_pipeline.schema import Categorical, Dense, Role, Schema, Split
from data_pipeline.streaming.row_groups import read_footers, read_user_ends


@dataclass(frozen=True, kw_only=True)
class Encoded(EncodedDataset):
    """Labelled rows of encoded ids: whole numbers from 0, of any integer type.

    Attributes:
        source: The folder of the files.
        train: A glob of the training files, relative to the folder.
        validation: A glob of the validation files; it may match nothing.
        test: A glob of the test files.
        user: The column of users.
        item: The column of items.
        label: The column of labels, 0 or 1, or several such columns.
        weight: The column of sample weights, finite and at least 0. None: every row counts the same.
        categorical: Further columns of ids, one per row.
        dense: Columns of real numbers; they are read once, for their means and deviations.
        lists: Columns of lists of ids; they are read once, for their longest list.
        list_vocabularies: For a column of lists, the column whose ids it has.
    """

    source: str
    train: str = "train/**/*.parquet"
    validation: str = "validation/**/*.parquet"
    test: str = "test/**/*.parquet"
    user: str = "user_id"
    item: str = "item_id"
    label: str | tuple[str, ...] = "label"
    weight: str | None = None
    categorical: tuple[str, ...] = ()
    dense: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    list_vocabularies: dict[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.label:
            raise DataError(f"data.label = {list(self.label)}: names no column. Give one or several")
        named = [("user", self.user), ("item", self.item), *(("label", name) for name in self._labels)]
        named += [] if self.weight is None else [("weight", self.weight)]
        named += [(role, name) for role in ("categorical", "dense", "lists") for name in getattr(self, role)]
        check_roles(named)
        check_feature_names((), self._labels[1:])
        singles = (self.user, self.item, *self.categorical)
        self._lists.check({name: name for name in singles})

    @property
    def _labels(self) -> tuple[str, ...]:
        return (self.label,) if isinstance(self.label, str) else self.label

    @property
    def _numbers(self) -> tuple[str, ...]:
        """The columns that are no ids."""
        return (*self._labels, *self.dense, *(() if self.weight is None else (self.weight,)))

    @property
    def _lists(self) -> ListColumns:
        return ListColumns(self.lists, self.list_vocabularies or {})

    def output(self, requested: str | None, default: str) -> Path:
        """Return the folder of the files, where their description is also written."""
        if requested is not None and Path(requested).resolve() != Path(self.source).resolve():
            raise DataError(
                f"output = {requested}: encoded data stay where they are, and schema.json is written to data.source ="
                f" {self.source}. Leave output out"
            )
        return Path(self.source)

    def describe(self, output: Path, name: str, overwrite: bool, on_progress: Callable[[str], None]) -> Schema:
        """Write ``schema.json``, ``report.json`` and the tables of ids.

        Raises:
            DataError: Files are missing or do not fit each other, or a value is null or negative.
        """
        _refuse_existing(output, overwrite)
        files = {split: _files(output, split, getattr(self, split)) for split in ("train", "validation", "test")}
        files = {split: found for split, found in files.items() if found}
        on_progress(f"reading the footers of {sum(map(len, files.values())):,} files")
        stored = self._types([file for found in files.values() for file in found])
        rows = {split: sum(pq.read_metadata(file).num_rows for file in found) for split, found in files.items()}
        columns = self._columns(files, on_progress)
        schema = Schema(
            name,
            self._labels[0],
            tuple(columns),
            (),
            {
                split: Split(rows[split], tuple(file.relative_to(output).as_posix() for file in found))
                for split, found in files.items()
            },
            list_separator=LIST_SEPARATOR if self.lists else None,
            weight=self.weight,
            labels={name: name for name in self._labels} if len(self._labels) > 1 else {},
            stored=stored,
            described=True,
        )
        for split, found in files.items():
            for label in self._labels:
                check_labels(found, label)
            if self.weight is not None:
                check_weights(found, self.weight, split)
            if split != "train":
                on_progress(f"checking that {split} is sorted by user")
                read_user_ends(read_footers(output, schema, split), schema)
        schema = replace(schema, dense=tuple(self._dense(files["train"], column) for column in self.dense))
        tables = _write_ids(output, schema, on_progress)
        shards = {file.relative_to(output).as_posix(): digest_footer(file) for each in files.values() for file in each}
        written = {path.relative_to(output).as_posix(): digest_file(path) for path in tables}
        schema = replace(schema, digests=dict(sorted((shards | written).items())))
        schema.save(output)
        self._report(schema, rows).save(output)
        return schema

    def _columns(self, files: dict[str, list[Path]], on_progress: Callable[[str], None]) -> list[Categorical]:
        """Return the columns of ids and of lists; a table has the ids of all its columns."""
        roles: dict[str, Role] = {self.user: "user", self.item: "item"}
        lists = {name: {split: read_lists(found, name) for split, found in files.items()} for name in self.lists}
        table_of = {name: self._lists.vocabularies.get(name, name) for name in self.lists}
        tables: dict[str, Categorical] = {}
        for column in dict.fromkeys((self.user, self.item, *self.categorical, *table_of.values())):
            sizes = dict.fromkeys(files, 0)
            for split, found in files.items():
                largest = [lists[name][split].largest for name, table in table_of.items() if table == column]
                largest += [] if column in self.lists else [largest_in_files(found, column, on_progress)]
                sizes[split] = max(largest) + 1
            tables[column] = Categorical(column, max(sizes.values()), sizes["train"], roles.get(column, "feature"))
        columns = [tables[name] for name in (self.user, self.item, *self.categorical)]
        for name, table in table_of.items():
            longest = max(each.longest for each in lists[name].values())
            like, shared = tables[table], "" if table == name else table
            columns.append(
                Categorical(name, like.num_ids, like.num_seen, sequence=True, table=shared, max_length=longest)
            )
        return columns

    def _dense(self, files: list[Path], column: str) -> Dense:
        statistics = dense_statistics(files, column)
        if not np.isfinite(statistics.mean):
            raise DataError(
                f"{files[0].parent}: column {column!r} has nulls or values that are not finite. Replace them"
            )
        return statistics

    def _types(self, files: list[Path]) -> dict[str, str]:
        """Return the type of every column, the same in all files."""
        found: dict[str, str] = {}
        for file in files:
            try:
                schema = pq.read_schema(file)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{file}: cannot be read as Parquet: {error}. Write it again") from error
            for column in (self.user, self.item, *self.categorical, *self.lists, *self._numbers):
                if column not in schema.names:
                    raise DataError(f"{file}: no column {column!r}. The columns are: {', '.join(schema.names)}")
                kind = self._type(file, column, schema.field(column).type)
                if found.setdefault(column, kind) != kind:
                    raise DataError(
                        f"{file}: column {column!r} has the type {kind}, but {found[column]} in {files[0]}. Write all"
                        " files with one type"
                    )
        return found

    def _type(self, file: Path, column: str, kind: pa.DataType) -> str:
        if column in self.lists:
            if not is_list_of_ids(kind):
                raise DataError(
                    f"{file}: column {column!r} has the type {kind}, but it must be of lists of encoded ids. Convert it"
                )
            return f"list<{kind.value_type}>"
        is_id = column not in self._numbers
        allowed = pa.types.is_integer(kind) and kind != pa.uint64()
        if not is_id:
            allowed = allowed or pa.types.is_floating(kind) or (column in self._labels and pa.types.is_boolean(kind))
        if not allowed:
            meaning = "encoded ids: integers, one per row" if is_id else "numbers"
            raise DataError(f"{file}: column {column!r} has the type {kind}, but it must be of {meaning}. Convert it")
        return str(kind)

    def _report(self, schema: Schema, rows: dict[str, int]) -> Report:
        users, items = (schema.entity(role).num_ids for role in ("user", "item"))
        samples = sum(rows.values())
        return Report(
            name=schema.name,
            source=self.source,
            seed=0,
            split="given",
            rows_read=samples,
            rows_dropped={},
            duplicate_pairs=None,
            rows=rows,
            users=users,
            items=items,
            interactions=None,
            samples=samples,
            density=None,
            validation="given" if "validation" in rows else "none",
        )


def _refuse_existing(output: Path, overwrite: bool) -> None:
    if not output.is_dir():
        raise DataError(f"{output}: no such folder. Set data.source; relative paths start at {Path.cwd()}")
    if not (output / "schema.json").exists():
        if (output / FOLDER).exists():
            raise DataError(f"{output / FOLDER}: exists, but the tables of ids are written there. Rename it")
        return
    if not overwrite:
        raise DataError(f"{output}: has a schema.json already. Pass overwrite=true to write it again")
    if not Schema.load(output).described:
        raise DataError(f"{output}: was written by preparation, so it needs no description. Set another data.source")


def _files(output: Path, split: str, pattern: str) -> list[Path]:
    try:
        files = sorted(path for path in output.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise DataError(f"data.{split} = {pattern}: not a glob relative to data.source: {error}") from error
    if not files and split != "validation":
        raise DataError(f"data.{split} = {pattern}: no such file in {output}. Correct data.{split}, or data.source")
    return files


def _write_ids(output: Path, schema: Schema, on_progress: Callable[[str], None]) -> list[Path]:
    """Write the tables of ids, in which every id is its own original id."""
    form = pa.schema([("id", pa.int64()), ("original_id", pa.int64())])
    (output / FOLDER).mkdir(exist_ok=True)
    paths = []
    for column in (each for each in schema.categorical if each.table_name == each.name):
        on_progress(f"writing {column.num_ids:,} ids of {column.name}")
        paths.append(id_table_path(output, column.table_name))
        write_parquet(pa.RecordBatchReader.from_batches(form, _own_ids(column.num_ids, form)), paths[-1])
    return paths


def _own_ids(count: int, form: pa.Schema) -> Iterator[pa.RecordBatch]:
    for start in range(0, count, BATCH_ROWS):
        ids = pa.array(np.arange(start, min(start + BATCH_ROWS, count)))
        yield pa.record_batch([ids, ids], schema=form)
