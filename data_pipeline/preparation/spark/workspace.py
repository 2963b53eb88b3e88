"""The workspace of a Spark job: SQL of DuckDB, translated for Spark by SQLGlot."""

from __future__ import annotations

import glob
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import sqlglot
from pyspark.sql import DataFrame
from sqlglot import exp

from data_pipeline.errors import DataError
from data_pipeline.preparation.spark.tables import Tables
from data_pipeline.preparation.spark.tasks import In, Reader
from data_pipeline.preparation.workspace import MALFORMED, UnreadableFile, Workspace, literal, quoted, scan_path

A = TypeVar("A")
B = TypeVar("B")

# The number in the last 8 bytes of the MD5 digest, the lowest first, as DuckDB's md5_number_lower has it
_BYTES = ", ".join(f"substr(md5(text), {place}, 2)" for place in range(31, 16, -2))
_MD5_NUMBER_LOWER = sqlglot.parse_one(f"CAST(conv(concat({_BYTES}), 16, 10) AS DECIMAL(20, 0))", read="spark")

# Types of DuckDB that Parquet or Spark lacks: what represents their values in the same order
_PORTABLE = {
    "HUGEINT": "{}::DECIMAL(38, 0)",
    "UBIGINT": "{}::DECIMAL(20, 0)",
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER"), "{}::BIGINT"),
    **dict.fromkeys(("TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", "TIMESTAMPTZ_NS"), "epoch_ns({})"),
}


@dataclass(frozen=True)
class Part:
    """The rows of one raw file.

    Attributes:
        file: The raw file.
        path: The Parquet file with its columns.
        first: The ``rowid`` of its first row.
    """

    file: Path
    path: Path
    first: int


@dataclass(frozen=True, kw_only=True)
class SparkWorkspace(Workspace):
    """Tables in Spark. ``raw`` is a Parquet file for each raw file, which DuckDB reads in a task of Spark.

    Attributes:
        tables: The other tables.
        memory_gb: Memory for DuckDB in a task, in GB.
    """

    tables: Tables
    memory_gb: float
    _parts: list[Part] = field(default_factory=list)

    def query(self, sql: str) -> list[tuple]:
        """Run one statement of DuckDB's SQL on Spark."""
        statement = sqlglot.parse_one(sql, read="duckdb")
        if isinstance(statement, exp.Query):
            return [tuple(row) for row in self._frame(statement).collect()]
        target = statement.find(exp.Table)  # the first table is the one that the statement creates or changes
        assert target is not None, sql
        name = target.name
        if isinstance(statement, exp.Create):
            create = self.tables.view if statement.kind == "VIEW" else self.tables.create
            create(name, self._frame(statement.expression))
        elif isinstance(statement, exp.Drop):
            self.tables.drop(name)
        elif isinstance(statement, exp.Alter):
            [action] = statement.args["actions"]
            assert isinstance(action, exp.AlterRename), sql
            self.tables.rename(name, action.this.name)
        elif isinstance(statement, exp.Insert):
            rows = self.session_table(name).union(self._frame(statement.expression))
            self.tables.create(name, rows)
        elif isinstance(statement, exp.Delete):
            return [(self._delete(name, statement.args["where"].this),)]
        else:
            raise NotImplementedError(sql)
        return []

    def inspect(self, sql: str) -> list[tuple]:
        return self.connection.execute(sql).fetchall()

    def register(self, name: str, rows: ds.Dataset) -> None:
        raise DataError(f"{name}: Arrow files: not with engine=spark. Write Parquet, or set engine=duckdb")

    def session_table(self, name: str) -> DataFrame:
        """Return the rows of a table."""
        return self.tables.session.table(f"`{name}`")

    def _frame(self, select: exp.Expr) -> DataFrame:
        return self.tables.session.sql(to_spark(select))

    def _parsed(self, select: str) -> DataFrame:
        return self._frame(sqlglot.parse_one(select, read="duckdb"))

    def _delete(self, name: str, condition: exp.Expr) -> int:
        before = self.tables.count(name)
        kept = exp.select("*").from_(exp.to_table(name)).where(exp.not_(exp.paren(condition)))
        self.tables.create(name, self._frame(kept))
        return before - self.tables.count(name)

    def count(self, table: str) -> int:
        if table == "raw":
            return sum(pq.read_metadata(part.path).num_rows for part in self._parts)
        return self.tables.count(table)

    def rows_by_file(self, table: str, file_column: str) -> dict[str, int]:
        assert table == "raw"
        return {str(part.file): pq.read_metadata(part.path).num_rows for part in self._parts}

    def row(self, number: int, values: str) -> tuple:
        part = self._parts[bisect_right(self._parts, number, key=lambda part: part.first) - 1]
        [found] = self.inspect(f"WITH raw AS ({_raw(part)}) SELECT {values} FROM raw WHERE rowid = {number}")
        return found

    def stream(self, select: str) -> pa.RecordBatchReader:
        return self.tables.stream(self._parsed(select))

    def numbered(self, select: str, order: str) -> str:
        return quoted(self.tables.number(self._parsed(f"SELECT * FROM ({select}) ORDER BY {order}")))

    def over_raw(self, select: str) -> str:
        described = self.inspect(f"DESCRIBE {select}")
        values = ", ".join(
            f"{_PORTABLE.get(kind, '{}').format(quoted(name))} AS {quoted(name)}" for name, kind, *_ in described
        )
        folder = self.tables.new_folder()
        folder.mkdir(parents=True)
        jobs = [
            [(f"SELECT {values} FROM (WITH raw AS ({_raw(part)}) {select})", folder / part.path.name)]
            for part in self._parts
        ]
        for part, error in zip(self._parts, self._copy(jobs), strict=True):
            if error is not None:
                raise duckdb.Error(f"{part.file}: {error}")
        self.tables.create_from_files(folder.name, folder)
        return quoted(folder.name)

    def load(
        self,
        table: str,
        scans: Iterable[tuple[Path, str]],
        file_column: str,
        then: Callable[[str, Path], str] | None = None,
    ) -> None:
        """Read every file in a task. The table is ``raw``."""
        assert table == "raw" and not self._parts
        rows, kept = self.tables.new_folder(), self.tables.new_folder()
        for folder in (rows, kept):
            folder.mkdir(parents=True)
        files, jobs = [], []
        for number, (file, select) in enumerate(scans):
            name = f"part-{number:05d}.parquet"
            files.append(file)
            jobs.append([(select, rows / name), *([(then(table, file), kept / name)] if then else [])])
        self.on_progress(f"reading {len(files):,} files")
        first = 0
        for file, [(_, path), *_], error in zip(files, jobs, self._copy(jobs), strict=True):
            if error is not None:
                raise UnreadableFile(file) from duckdb.Error(error)
            self._parts.append(Part(file, path, first))
            first += pq.read_metadata(path).num_rows
        self.inspect(f"CREATE VIEW raw AS {_raw(self._parts[0])} LIMIT 0")  # all files have its types
        if then:
            self.inspect(f"CREATE TABLE {MALFORMED} AS FROM read_parquet({literal(glob.escape(str(kept)))} || '/*')")

    def map(self, function: Callable[[A], B], values: Iterable[A]) -> list[B]:
        """Return ``function(value)`` of every value, computed in a task each."""
        return self._in_tasks(In(os.getcwd(), function), list(values))

    def _copy(self, jobs: list[list[tuple[str, Path]]]) -> list[str | None]:
        reader = Reader(os.getcwd(), self.memory_gb)
        return self._in_tasks(reader, [[(select, str(path)) for select, path in job] for job in jobs])

    def _in_tasks(self, function: Callable[[Any], Any], values: list[Any]) -> list[Any]:
        context = self.tables.session.sparkContext
        return context.parallelize(values, max(len(values), 1)).map(function).collect()


def _raw(part: Part) -> str:
    """Return the SELECT of the rows of ``raw`` that come from one file."""
    rows = f"read_parquet({scan_path(part.path)}, file_row_number = true, hive_partitioning = false)"
    return (
        f"SELECT * EXCLUDE (file_row_number), {literal(str(part.file))} AS __file,"
        f" {part.first} + file_row_number AS rowid FROM {rows}"
    )


def to_spark(statement: exp.Expr) -> str:
    """Return the SQL of a statement for Spark.

    Example:
        >>> to_spark(sqlglot.parse_one("SELECT * EXCLUDE (b), a // 2 AS half FROM t ORDER BY a", read="duckdb"))
        'SELECT * EXCEPT (b), a DIV 2 AS half FROM t ORDER BY a NULLS LAST'
    """
    return statement.transform(_translated).sql(dialect="spark")


def _translated(node: exp.Expr) -> exp.Expr:
    if isinstance(node, exp.Anonymous) and node.name.lower() == "md5_number_lower":
        [text] = node.expressions
        return _MD5_NUMBER_LOWER.copy().transform(
            lambda part: text.copy() if isinstance(part, exp.Column) and part.name == "text" else part
        )
    return node
