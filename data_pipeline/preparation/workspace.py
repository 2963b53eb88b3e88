"""Where a data set is prepared: a DuckDB connection that spills to disk, and the quoting of its SQL."""

from __future__ import annotations

import glob
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from data_pipeline.preparation.journal import Journal
from data_pipeline.preparation.progress import watched

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """What every step of preparation needs.

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

    def query(self, sql: str) -> list[tuple]:
        """Run one statement and fetch every row of its result."""
        return self.journal.run(sql) if self.journal else self.connection.execute(sql).fetchall()

    def count(self, table: str) -> int:
        """Count the rows of a table or view."""
        [(rows,)] = self.query(f"SELECT count(*) FROM {table}")
        return rows


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
    with duckdb.connect(str(scratch / "work.duckdb")) as connection:
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


def quoted(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def scan_path(file: Path) -> str:
    """Return an SQL string for the path of one file: DuckDB reads every path as a glob."""
    return literal(glob.escape(str(file)))
