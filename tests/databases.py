"""Databases for tests: opening DuckDB registers all its functions, which takes longer than many queries of a test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from types import SimpleNamespace

import duckdb
import pytest

from data_pipeline.preparation import workspace

_numbers = count()


def share_duckdb(patch: pytest.MonkeyPatch) -> None:
    """Give every preparation a separate database file in one instance of DuckDB per process."""
    patch.setattr(workspace, "duckdb", SimpleNamespace(connect=_attached, Error=duckdb.Error))


@cache
def _instance(process: int) -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@contextmanager
def _attached(path: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database file in the instance of this process, which is not that of a process it was forked from."""
    name = f"work_{next(_numbers)}"
    with _instance(os.getpid()).cursor() as connection:
        connection.execute(f"ATTACH {workspace.literal(path)} AS {name}")
        connection.execute(f"USE {name}")
        try:
            yield connection
        finally:
            connection.execute("USE memory")
            connection.execute(f"DETACH {name}")
