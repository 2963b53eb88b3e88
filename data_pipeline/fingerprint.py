"""Fingerprints of prepared folders: they tell whether two folders have the same data, without reading all of it.

They are made of the digests in ``schema.json`` (see `data_pipeline.digests`), which are compared with the files: their
sizes and Parquet footers at the start, their content when it is read. Of a folder without digests, they are made of the
beginnings and ends of the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from data_pipeline.id_tables import FOLDER
from data_pipeline.integrity import check_folder
from data_pipeline.schema import Schema

_END = 1 << 16  # bytes: a Parquet file ends with its footer, which has the extremes and sizes of every column chunk


def data_fingerprint(folder: Path | str) -> str:
    """Return a hash of a prepared folder: a copy has the same hash, differently prepared data have another.

    Raises:
        DataError: A file is missing, or has another size or Parquet footer than when it was prepared.
    """
    root, schema = Path(folder), Schema.load(folder)
    if schema.digests:
        check_folder(root, schema)
        return hashlib.sha256((root / "schema.json").read_bytes()).hexdigest()
    return _hash(root, [root / "schema.json", *(path for path in root.glob("*/**/*") if path.is_file())])


def split_fingerprint(folder: Path | str, schema: Schema, split: str) -> str:
    """Return a hash of one split's files and of the id tables, computed like `data_fingerprint`."""
    root = Path(folder)
    if schema.digests:
        names = [name for name in schema.digests if name in schema.splits[split].files or name.startswith(f"{FOLDER}/")]
        return hashlib.sha256(repr([(name, schema.digests[name]) for name in sorted(names)]).encode()).hexdigest()
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
