"""Check the files of a prepared folder against the digests in its ``schema.json``."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.digests import check_content, check_digest
from data_pipeline.errors import DataError
from data_pipeline.schema import Schema


def checked_file(folder: Path | str, name: str) -> Path:
    """Return the path of a file of a prepared folder whose content is as it was written.

    A folder without ``schema.json``, or without digests in it, is not checked. A file that nobody writes to is read
    once per process.

    Args:
        folder: The prepared folder.
        name: Name of the file, relative to ``folder``.

    Raises:
        DataError: The file was damaged or altered.
        FileNotFoundError: There is no such file.
    """
    path = Path(folder) / name
    if (Path(folder) / "schema.json").is_file():
        check_content(path, Schema.load(folder).digests.get(name))
    return path


def check_folder(folder: Path | str, schema: Schema) -> None:
    """Check the sizes of all files of a prepared folder, and the footers of its Parquet files.

    Raises:
        DataError: A file is missing or altered; the message names the first.
    """
    for name, digest in schema.digests.items():
        path = Path(folder) / name
        if not path.is_file():
            raise DataError(f"{path}: no such file, but it was prepared. Restore it, or prepare the data again")
        check_digest(path, digest)
