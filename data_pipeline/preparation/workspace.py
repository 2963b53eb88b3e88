"""Where a data set is prepared: a DuckDB connection that spills to disk, and the quoting of its SQL."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from data_pipeline.errors import OutputError
from data_pipeline.parquet_files import BATCH_ROWS
from data_pipeline.preparation.journal import Journal
from data_pipeline.preparation.progress import watched

if TYPE_CHECKING:
    from data_pipeline.preparation.dataset import Dataset

logger = logging.getLogger(__name__)

MALFORMED = '"malformed lines"'  # the table of what is kept about invalid rows that were left out

A = TypeVar("A")
B = TypeVar("B")


class UnreadableFile(Exception):
    """A raw file that DuckDB cannot read, with its error as the cause."""

    def __init__(self, file: Path) -> None:
        super().__init__(str(file))
        self.file = file


@dataclass(frozen=True)
class Workspace:
    """What every step of preparation needs: tables in DuckDB, on one machine.

    The steps are written once, in the SQL of DuckDB. `data_pipeline.preparation.spark` has the workspace that runs
    them on a Spark cluster.

    Attributes:
        connection: DuckDB on a database file in ``scratch``, so that tables and sorts larger than memory go to disk.
        scratch: The folder of the database, for further files.
        seed: Seed of every random choice.
        on_progress: Receives one line of progress at a time.
        journal: Of a preparation that goes on where it was ended; None: every statement is run.
        keep_ids: A prepared folder whose ids keep table rows; None: only ids of training have some.
        warnings: The messages of `warn`, for the report.
    """

    connection: duckdb.DuckDBPyConnection
    scratch: Path
    seed: int
    on_progress: Callable[[str], None]
    journal: Journal | None = None
    keep_ids: Path | None = None
    warnings: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        """Log what is probably a mistake in the data but no reason to refuse them, and keep it for the report."""
        logger.warning("Warning: %s", message)
        self.warnings.append(message)

    def reads(self, file: Path) -> None:
        """Note that a raw file is about to be read: whoever reads one by other means than `load` calls this first.

        Raises:
            OutputError: A preparation that goes on read another file of this name, or none, before it was ended.
        """
        if self.journal is None or self.scratch in file.parents or not file.is_file():
            return
        if not self.journal.reads(file):
            raise OutputError(
                f"{self.scratch}: was begun with another file {file}. Remove this folder, or pass resume=false"
            )

    def query(self, sql: str) -> list[tuple]:
        """Run one statement and fetch every row of its result."""
        return self.journal.run(sql) if self.journal else self.connection.execute(sql).fetchall()

    def inspect(self, sql: str) -> list[tuple]:
        """Run one statement over files, or over the types of ``raw``, on this machine, and fetch its rows."""
        return self.query(sql)

    def register(self, name: str, rows: ds.Dataset) -> None:
        """Give rows of Arrow files a name."""
        self.connection.register(name, rows)

    def count(self, table: str) -> int:
        """Count the rows of a table or view."""
        [(rows,)] = self.query(f"SELECT count(*) FROM {table}")
        return rows

    def rows_by_file(self, table: str, file_column: str) -> dict[str, int]:
        """Count the rows of each file in a table that was read by `load`; files without rows may be left out."""
        return dict(self.query(f"SELECT {file_column}, count(*) FROM {table} GROUP BY {file_column}"))

    def row(self, number: int, values: str) -> tuple:
        """Return the SQL expressions ``values`` of the row of ``raw`` with the ``rowid`` ``number``."""
        [found] = self.query(f"SELECT {values} FROM raw WHERE rowid = {number}")
        return found

    def stream(self, select: str) -> pa.RecordBatchReader:
        """Run a SELECT with a total order, and stream its rows in that order."""
        return self.connection.sql(select).to_arrow_reader(BATCH_ROWS)

    def over_raw(self, select: str) -> str:
        """Return the SQL of the rows of a SELECT over ``raw`` that looks at one row at a time, or at groups.

        A cluster evaluates it file by file, so groups must be aggregated again by the query that contains it.
        """
        return f"({select})"

    def numbered(self, select: str, order: str) -> str:
        """Return the SQL of the rows of a SELECT with ``__number``, their number from 0 in a total order."""
        return f"(SELECT *, row_number() OVER (ORDER BY {order}) - 1 AS __number FROM ({select}))"

    def load(
        self,
        table: str,
        scans: Iterable[tuple[Path, str]],
        file_column: str,
        then: Callable[[str, Path], str] | None = None,
    ) -> None:
        """Read files into a table. Their order is kept, so ``rowid`` numbers the rows of the files.

        Args:
            table: Name of the table.
            scans: Files and their SELECTs, of the same columns.
            file_column: Column to add, of the name of the file.
            then: Returns the SELECT of what to keep about a file that was read into the table, in `MALFORMED`. It is
                run in the same transaction: what DuckDB says of a scan is gone when the process ends.

        Raises:
            UnreadableFile: DuckDB cannot read a file.
        """
        for number, (file, select) in enumerate(scans):
            self.reads(file)
            self.on_progress(f"reading {file}")
            statement = f"INSERT INTO {table}" if number else f"CREATE TABLE {table} AS"
            kept = f"; {keeping(then(table, file))}" if then else ""
            try:
                self.query(f"{statement} SELECT *, {literal(str(file))} AS {file_column} FROM ({select}){kept}")
            except (duckdb.Error, pa.ArrowInvalid) as error:
                raise UnreadableFile(file) from error

    def map(self, function: Callable[[A], B], values: Iterable[A]) -> list[B]:
        """Return ``function(value)`` of every value; a cluster computes them in parallel."""
        return [function(value) for value in values]


class Engine(Protocol):
    """What runs the steps of preparation."""

    def check(self, dataset: Dataset, resume: bool) -> None:
        """Raise `DataError` for a data set, or a setting, that the engine cannot prepare."""

    def open(
        self,
        scratch: Path,
        *,
        memory_gb: float,
        seed: int,
        on_progress: Callable[[str], None],
        on_percent: Callable[[float], None],
        resume: bool,
        keep_ids: Path | None,
    ) -> AbstractContextManager[Workspace]:
        """Open a workspace; see `open_workspace`."""


class DuckEngine:
    """DuckDB on this machine, for all data sets."""

    def check(self, dataset: Dataset, resume: bool) -> None:
        pass

    def open(self, scratch: Path, **options: Any) -> AbstractContextManager[Workspace]:
        return open_workspace(scratch, **options)


@contextmanager
def open_workspace(
    scratch: Path,
    *,
    memory_gb: float,
    seed: int,
    on_progress: Callable[[str], None],
    on_percent: Callable[[float], None] = lambda _: None,
    resume: bool = False,
    keep_ids: Path | None = None,
) -> Iterator[Workspace]:
    """Open a workspace.

    Args:
        scratch: The folder of the database; it is created where it is missing.
        memory_gb: Memory for DuckDB, in GB.
        seed: Seed of every random choice.
        on_progress: Receives one line of progress at a time.
        on_percent: Receives, from another thread, how much of the running query is done.
        resume: Take the results of the statements that the database has from an earlier time.
        keep_ids: See `Workspace`.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        connection = _connect(scratch / "work.duckdb", stack)
        connection.execute(f"SET memory_limit = '{memory_gb}GB'")
        connection.execute(f"SET temp_directory = {literal(str(scratch / 'spill'))}")
        connection.execute("SET preserve_insertion_order = true")
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")  # the database is removed
        journal = Journal(connection) if resume else None
        if journal and journal.done:
            on_progress(f"going on after {journal.done} steps that are done")
        with watched(connection, on_percent):
            yield Workspace(connection, scratch, seed, on_progress, journal, keep_ids)


def _connect(database: Path, stack: ExitStack) -> duckdb.DuckDBPyConnection:
    try:
        return stack.enter_context(duckdb.connect(str(database)))
    except duckdb.Error as error:
        if not database.exists():  # the disk is full
            raise
        raise OutputError(f"{database}: damaged: {error}. Remove {database.parent}, or pass resume=false") from error


def keeping(select: str) -> str:
    """Return the SQL that adds the rows of a SELECT to `MALFORMED`."""
    return f"CREATE TABLE IF NOT EXISTS {MALFORMED} AS {select} WITH NO DATA; INSERT INTO {MALFORMED} {select}"


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def scan_path(file: Path) -> str:
    """Return an SQL string for the path of one file: DuckDB reads every path as a glob."""
    return literal(glob.escape(str(file)))
