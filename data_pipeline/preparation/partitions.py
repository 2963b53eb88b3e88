"""Columns in the names of folders, as Hive and Spark write them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote


def partitions(file: Path) -> dict[str, str | None]:
    """Return the columns that Hive writes into folder names: ``country=DE/day=3/part.parquet``."""
    pairs = (part.split("=", 1) for part in file.parent.parts if "=" in part)
    return {name: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value) for name, value in pairs}
