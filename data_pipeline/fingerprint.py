"""Fingerprints of prepared folders: they tell whether two folders have the same data, without reading all of it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.id_tables import FOLDER
from data_pipeline.schema import Schema

_END = 1 << 16  # bytes: a Parquet file ends with its footer, which has the extremes and sizes of every column chunk


def data_fingerprint(folder: Path | str) -> str:
    """Return a hash of a prepared folder: a copy has the same hash, differently prepared data have another.

    It covers the name, the size, and the first and last 64 KiB of ``schema.json`` and of every file in a subfolder,
    such as ``train/part-00000.parquet`` and ``ids/user_id.parquet``.
    """
    root = Path(folder)
    return _hash(root, [root / "schema.json", *(path for path in root.glob("*/**/*") if path.is_file())])


def split_fingerprint(folder: Path | str, schema: Schema, split: str) -> str:
    """Return a hash of one split's files and of the id tables, computed like `data_fingerprint`."""
    root = Path(folder)
    return _hash(root, [*(root / name for name in schema.splits[split].files), *(root / FOLDER).glob("*.parquet")])


def _hash(root: Path, files: Iterable[Path]) -> str:
    found = hashlib.sha256()
    for path in sorted(files):
        size = path.stat().st_size
        found.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
        with path.open("rb") as file:
            found.update(file.read(_END))
            file.seek(max(_END, size - _END))
            found.update(file.read(_END))
    return found.hexdigest()
