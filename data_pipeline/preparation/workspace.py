"""Where a data set is prepared: a DuckDB connection that spills to disk, and an output that is complete or absent."""

from __future__ import annotations

import glob
import logging
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from data_pipeline.errors import DataError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workspace:
    """What every step of preparing needs.

    Attributes:
        connection: DuckDB on a database file in `scratch`, so tables and sorts larger than memory go to disk.
        scratch: a folder that is removed when preparing ends, well or not.
        seed: of every random choice.
        on_progress: receives one line for people now and then.
        warnings: what `warn` was told, for the report.
    """

    connection: duckdb.DuckDBPyConnection
    scratch: Path
    seed: int
    on_progress: Callable[[str], None]
    warnings: list[str] = field(default_factory=list)

    def warn(self, message: str) -> None:
        """Log what is likely a mistake in the data but no reason to refuse them, and keep it for the report."""
        logger.warning("Warning: %s", message)
        self.warnings.append(message)

    def query(self, sql: str) -> list[tuple]:
        """Run one statement and fetch every row of its result."""
        return self.connection.execute(sql).fetchall()


@contextmanager
def open_workspace(
    scratch: Path, *, memory_gb: float, seed: int, on_progress: Callable[[str], None]
) -> Iterator[Workspace]:
    """A workspace whose DuckDB keeps to `memory_gb` GB; closed, and its scratch folder removed, at the end."""
    scratch.mkdir(parents=True)
    try:
        with duckdb.connect(str(scratch / "work.duckdb")) as connection:
            connection.execute(f"SET memory_limit = '{memory_gb}GB'")
            connection.execute(f"SET temp_directory = {literal(str(scratch / 'spill'))}")
            connection.execute("SET preserve_insertion_order = true")
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            yield Workspace(connection, scratch, seed, on_progress)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def complete_or_absent(output: Path, *, overwrite: bool) -> Iterator[Path]:
    """A new folder beside `output`, renamed to it when the block ends well and removed when it does not.

    Raises:
        DataError: `output` exists and `overwrite` is false, or it is no prepared data set.
    """
    if output.exists() and not overwrite:
        raise DataError(f"{output}: already exists. Pass overwrite=true to replace it, or another output folder")
    if output.exists() and not (output / "schema.json").is_file():
        raise DataError(f"{output}: is not overwritten: it has no schema.json, so it is no prepared data set")
    output.parent.mkdir(parents=True, exist_ok=True)
    tag = uuid.uuid4().hex[:8]
    unfinished = output.with_name(f".{output.name}.{tag}.unfinished")
    unfinished.mkdir()
    try:
        yield unfinished
        replaced = output.with_name(f".{output.name}.{tag}.replaced")
        if output.exists():
            output.rename(replaced)
        unfinished.rename(output)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def scan_path(file: Path) -> str:
    """An SQL string for the path of one file: DuckDB takes every path for a glob."""
    return literal(glob.escape(str(file)))
