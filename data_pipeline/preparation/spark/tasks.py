"""What runs in Spark's Python processes: DuckDB over one file at a time, from and to Parquet files that all see.

DuckDB reads text, numbers and times here as it does on one machine, so that a value has one meaning with both engines.
Imports nothing but DuckDB: the processes are many.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb


@dataclass(frozen=True)
class Reader:
    """Writes the rows of SELECTs to Parquet files.

    Attributes:
        folder: Working folder of the driver, to which paths are relative.
        memory_gb: Memory for DuckDB, in GB.
    """

    folder: str
    memory_gb: float

    def __call__(self, job: Sequence[tuple[str, str]]) -> str | None:
        """Write files, each of which is complete or absent: Spark may run a task twice.

        Args:
            job: SELECTs, run one after the other in one connection, and the file to write of each.

        Returns:
            DuckDB's error, if it cannot read the rows.
        """
        os.chdir(self.folder)
        partial = f"{job[0][1]}.{uuid.uuid4().hex}"
        try:
            with duckdb.connect() as connection:
                connection.execute(f"SET memory_limit = '{self.memory_gb}GB'; SET threads = 1; SET TimeZone = 'UTC'")
                connection.execute("SET temp_directory = ?", [f"{partial}.spill"])
                for select, path in job:
                    connection.execute(f"COPY ({select}) TO '{partial.replace(chr(39), chr(39) * 2)}' (FORMAT parquet)")
                    os.replace(partial, path)
        except duckdb.Error as error:
            return str(error)
        finally:
            Path(partial).unlink(missing_ok=True)
        return None


@dataclass(frozen=True)
class In:
    """A function that runs in the working folder of the driver.

    Attributes:
        folder: The folder.
        function: The function, of one argument.
    """

    folder: str
    function: Callable

    def __call__(self, value: object) -> object:
        os.chdir(self.folder)
        return self.function(value)
