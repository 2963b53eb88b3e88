"""The manifest of a checkpoint: every file with its size and checksum, written last.

A checkpoint without a valid manifest is incomplete. The checksums (CRC-32) detect accidental damage: flipped bytes,
truncated, emptied, deleted or exchanged files. They do not authenticate the writer of a checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cove_dist.distributed import world
from cove_dist.errors import CheckpointError

MANIFEST = "manifest.json"
_CHUNK = 1 << 22
_ADVICE = "Restore the file, or remove this checkpoint's folder to use the previous checkpoint"

Files = dict[str, dict[str, Any]]  # name -> bytes, crc32


def describe_file(path: Path) -> dict[str, Any]:
    """Return the size and the checksum of a file, as stored in the manifest."""
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return {"bytes": size, "crc32": f"{checksum:08x}"}


def write_manifest(folder: Path, files: Files) -> None:
    """Write the manifest of a folder atomically.

    Args:
        folder: Folder of the checkpoint, whose files are complete.
        files: Descriptions of the files by name; see `describe_file`.
    """
    write_synced(folder / f"{MANIFEST}.partial", _text(files))
    (folder / f"{MANIFEST}.partial").rename(folder / MANIFEST)


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_manifest(folder: Path) -> Files:
    """Read the manifest of a checkpoint; return its files by name.

    Raises:
        CheckpointError: The manifest is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        if path.exists() and not path.is_file():  # a named pipe would block
            raise CheckpointError(f"{path}: damaged: not a file. {_ADVICE}")
        content = path.read_bytes()
        files = json.loads(content)["files"]
        sound = content == _text(files) and all(map(_is_entry, files.items()))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: missing; the checkpoint is incomplete. {_ADVICE}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}. {_ADVICE}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged: not a manifest. {_ADVICE}") from error
    if not sound:
        raise CheckpointError(f"{path}: damaged: its content does not match its checksum. {_ADVICE}")
    return files


def read_checked(folder: Path, name: str) -> bytes:
    """Return the content of a small file of a checkpoint.

    Raises:
        CheckpointError: The manifest does not list the file, or the file is missing or differs from the manifest.
    """
    files = read_manifest(folder)
    if name not in files:
        raise CheckpointError(f"{folder / MANIFEST}: does not list {name}. {_ADVICE}")
    problem = _problem(folder / name, files[name])
    if problem:
        raise CheckpointError(problem)
    return (folder / name).read_bytes()


def verify(folder: Path) -> None:
    """Compare every file of a checkpoint with the manifest. Collective: each rank reads a part of the files.

    Raises:
        CheckpointError: A file is missing or differs; raised on all ranks, names the first such file.
    """
    ranks = world()
    try:
        files = sorted(read_manifest(folder).items())
        found = [_problem(folder / name, entry) for name, entry in files[ranks.rank :: ranks.size]]
        problem = next(filter(None, found), None)
    except CheckpointError as error:
        problem = str(error)
    problem = next(filter(None, ranks.gather_objects(problem)), None)
    if problem:
        raise CheckpointError(problem)


def _problem(path: Path, expected: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a file and what to do; None if it is intact."""
    try:
        size = path.stat().st_size if path.is_file() else None
        if size is None:
            return f"{path}: missing. {_ADVICE}"
        if size != expected["bytes"]:
            return f"{path}: damaged: {size} bytes instead of {expected['bytes']}. {_ADVICE}"
        found = describe_file(path)["crc32"]
    except OSError as error:
        return f"{path}: cannot be read: {error.strerror}. {_ADVICE}"
    if found == expected["crc32"]:
        return None
    return f"{path}: damaged: its checksum is {found} instead of {expected['crc32']}. {_ADVICE}"


def _is_entry(item: tuple[str, Any]) -> bool:
    """Return whether an entry names a file directly in the folder."""
    name, entry = item
    return re.fullmatch(r"(?!\.\.?$)[\w.-]+", name) is not None and entry.keys() == {"bytes", "crc32"}


def _text(files: Files) -> bytes:
    """Return the canonical text of a manifest of these files, with a checksum over all entries."""
    files = dict(sorted(files.items()))
    checksum = zlib.crc32(json.dumps(files, sort_keys=True).encode())
    return json.dumps({"format": 1, "files": files, "crc32": f"{checksum:08x}"}, indent=2).encode() + b"\n"
