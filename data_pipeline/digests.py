"""Digests of the files of a prepared folder: they tell a damaged or altered file from the one that was written.

A Parquet file that `data_pipeline.parquet_files` writes has the SHA-256 digest of every row group in its footer, and
the digest of the file is that of its footer: a few KB are read to check it at the start, and every row group is checked
when it is read. Other files have a digest of all bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal

import pyarrow.parquet as pq

from data_pipeline.errors import DataError

ROW_GROUPS = b"row_group_sha256"  # key of a Parquet footer: JSON, [[byte after the row group, digest], …]
REMEDY = "Restore it, or prepare the data again"
_MAGIC = b"PAR1"
_PIECE = 1 << 20  # bytes read at a time

Signature = tuple[int, ...]  # of a file that nobody has written to in between


@dataclass(frozen=True)
class FileDigest:
    """What a file was when it was written.

    Attributes:
        bytes: Size of the file.
        sha256: SHA-256 of the file, or of its Parquet footer, in hexadecimal digits.
        covers: Whether the digest is of the content or of the footer.
    """

    bytes: int
    sha256: str
    covers: Literal["file", "footer"] = "file"


def digest_file(path: Path) -> FileDigest:
    """Return the digest of a file: of the footer where that has the digests of the row groups."""
    if path.suffix == ".parquet" and row_group_digests(pq.read_metadata(path)):
        return digest_footer(path)
    size = path.stat().st_size
    return FileDigest(size, _sha256(path, 0, size))


def digest_footer(path: Path) -> FileDigest:
    """Return the digest of a Parquet file's footer."""
    return FileDigest(path.stat().st_size, hashlib.sha256(read_footer(path)).hexdigest(), "footer")


def digest_folder(folder: Path) -> dict[str, FileDigest]:
    """Return the digest of every file in a subfolder, by its name relative to ``folder``, in order of the names."""
    files = sorted(path for path in folder.glob("*/**/*") if path.is_file())
    return {path.relative_to(folder).as_posix(): digest_file(path) for path in files}


def read_footer(path: Path) -> bytes:
    """Return the last bytes of a Parquet file, from its metadata on; none where its end is not that of one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        length = int.from_bytes(file.read(4), "little") + 8
        if file.read(4) != _MAGIC or length > size:
            return b""
        file.seek(size - length)
        return file.read(length)


def row_group_digests(footer: pq.FileMetaData) -> list[tuple[int, int, str]]:
    """Return the first byte, the byte after the last one, and the digest of every row group; empty if not recorded."""
    recorded = json.loads((footer.metadata or {}).get(ROW_GROUPS, b"[]"))
    starts = [0, *(end for end, _ in recorded)]
    return [(start, end, digest) for start, (end, digest) in zip(starts, recorded, strict=False)]


def check_digest(path: Path, expected: FileDigest | None) -> None:
    """Compare the size and the footer of a file with those when it was written: a few KB, whatever its size.

    Raises:
        DataError: They differ.
    """
    if expected is None:
        return
    size = path.stat().st_size
    if size != expected.bytes:
        raise DataError(f"{path}: {size:,} bytes, but {expected.bytes:,} when it was prepared. {REMEDY}")
    if expected.covers == "footer" and hashlib.sha256(read_footer(path)).hexdigest() != expected.sha256:
        raise DataError(f"{path}: altered since it was prepared: another Parquet footer. {REMEDY}")


def check_content(path: Path, expected: FileDigest | None) -> None:
    """Compare all bytes of a file with its digest. A file that nobody writes to is read once per process.

    Raises:
        DataError: They differ.
    """
    if expected is None:
        return
    check_digest(path, expected)
    if expected.covers == "footer":
        for number, (start, end, digest) in enumerate(row_group_digests(pq.read_metadata(path))):
            check_row_group(path, number, start, end, digest)
    elif _range_sha256(path, signature(path), 0, expected.bytes) != expected.sha256:
        raise DataError(f"{path}: altered since it was prepared: another content of the same size. {REMEDY}")


def check_row_group(path: Path, number: int, start: int, end: int, digest: str) -> None:
    """Compare the bytes ``start .. end-1`` of a file, those of a row group, with their digest.

    Raises:
        DataError: They differ.
    """
    if _range_sha256(path, signature(path), start, end) != digest:
        raise DataError(f"{path}, row group {number}: damaged or altered since it was prepared. {REMEDY}")


def differing_files(old: Mapping[str, FileDigest], new: Mapping[str, FileDigest]) -> list[str]:
    """Return the files that differ between two prepared folders, or are in one of them only, in order of the names."""
    return sorted(name for name in {*old, *new} if old.get(name) != new.get(name))


def signature(path: Path) -> Signature:
    """Return what changes whenever somebody writes to a file, or puts another one in its place."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@lru_cache(maxsize=1 << 16)
def _range_sha256(path: Path, _: Signature, start: int, end: int) -> str:
    return _sha256(path, start, end)


def _sha256(path: Path, start: int, end: int) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(start)
        for piece in _pieces(file, end - start):
            found.update(piece)
    return found.hexdigest()


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (piece := file.read(min(size, _PIECE))):
        size -= len(piece)
        yield piece
