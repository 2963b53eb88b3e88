"""A preparation that goes on where another was ended: the statements that are done, kept in the database itself.

A preparation is a sequence of SQL statements that the data, the settings and the seed determine. Each is run in one
transaction with an entry of its number, its digest and its result, so that the tables are those after the last entry
whenever the process ends. A preparation that goes on takes the results of the entries instead of running them.
"""

from __future__ import annotations

import hashlib
import io
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import duckdb

from data_pipeline.errors import OutputError

_CLASSES = {("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")}
_CLASSES |= {("decimal", "Decimal"), ("uuid", "UUID")}  # of the values of DuckDB's results


class Journal:
    """Runs statements once, and returns their kept results afterwards.

    Args:
        connection: The database that a preparation works in.

    Example:
        >>> connection = duckdb.connect()
        >>> Journal(connection).run("CREATE TABLE t AS SELECT 3 AS x")
        [(1,)]
        >>> again = Journal(connection)  # after the process was killed
        >>> again.done
        1
        >>> again.run("CREATE TABLE t AS SELECT 3 AS x"), again.run("SELECT x FROM t")
        ([(1,)], [(3,)])
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        connection.execute("CREATE TABLE IF NOT EXISTS __journal (number BIGINT, digest VARCHAR, result BLOB)")
        connection.execute("CREATE TABLE IF NOT EXISTS __read (file VARCHAR, size BIGINT, changed BIGINT)")
        self._read = {file: rest for file, *rest in connection.execute("FROM __read").fetchall()}
        self._kept = connection.execute("SELECT digest, result FROM __journal ORDER BY number").fetchall()
        self._next = 0

    @property
    def done(self) -> int:
        """The number of statements that need not be run."""
        return len(self._kept)

    def reads(self, file: Path) -> bool:
        """Note size and time of a file before it is read; return whether the statements that are done read the same."""
        stat = file.stat()
        found, kept = [stat.st_size, stat.st_mtime_ns], self._read.get(str(file))
        if kept is not None or self._next < self.done:
            return found == kept
        self._connection.execute("INSERT INTO __read VALUES (?, ?, ?)", [str(file), *found])
        self._read[str(file)] = found
        return True

    def run(self, sql: str) -> list[tuple]:
        """Return every row of the result of a statement, or of the last of several, unless its entry exists.

        Raises:
            OutputError: The entry is of another statement, or is damaged.
        """
        number, digest = self._next, hashlib.sha256(sql.encode()).hexdigest()
        self._next += 1
        if number < self.done:
            expected, result = self._kept[number]
            if digest != expected:
                raise OutputError(f"resume = true: step {number + 1} is not the one that was done. Pass resume=false")
            return _values(result)
        self._connection.execute("BEGIN")
        try:
            rows = self._connection.execute(sql).fetchall()
            self._connection.execute("INSERT INTO __journal VALUES (?, ?, ?)", [number, digest, pickle.dumps(rows)])
            self._connection.execute("COMMIT")
        except BaseException:
            with suppress(duckdb.Error):  # an error of the disk has ended the transaction, or the database
                self._connection.execute("ROLLBACK")
            raise
        return rows


class _Unpickler(pickle.Unpickler):
    """Builds values only: a folder on disk may be somebody else's, and a pickle can name any function."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _CLASSES:
            raise pickle.UnpicklingError(f"{module}.{name} is no value")
        return super().find_class(module, name)


def _values(result: bytes) -> list[tuple]:
    try:
        return _Unpickler(io.BytesIO(result)).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise OutputError(f"resume = true: the entry of a step is damaged: {error}. Pass resume=false") from error
