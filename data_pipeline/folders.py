"""Folders that are complete or absent: written under another name, then renamed.

While a folder is being written, it is ``NAME.TOKEN.partial``, next to a lock file ``.NAME.TOKEN.writing``. The system
releases the lock when its process ends for any reason, so later writers remove what a killed one left.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_pipeline.errors import OutputError, UserError
from data_pipeline.full_disk import is_full
from data_pipeline.json_files import to_json

logger = logging.getLogger(__name__)

_LONGEST = 180  # bytes of a name, so that the names derived from it are allowed as well
_LOCK = "writing"


@contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder to write to, and rename it to ``output`` when the block ends; after an error remove it.

    What killed processes left in the same place is removed first. Several processes may write the same folder: the
    last one to finish wins.

    Raises:
        OutputError: The folder cannot be created, or the disk is full.
    """
    token = secrets.token_hex(4)
    stem = f"{output.name.encode()[:_LONGEST].decode(errors='ignore')}.{token}"
    lock = output.with_name(f".{stem}.{_LOCK}")
    partial, before = _folders(lock)
    made = full = False
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(output.parent)
        with _locked(lock, output):
            partial.mkdir()
            made = True
            try:
                yield partial
                if output.exists():
                    output.rename(before)
                partial.rename(output)
            except Exception as error:
                full = not isinstance(error, UserError) and is_full(error, partial)
                raise
            finally:
                _put_back(before, output)
                for folder in (partial, before):
                    shutil.rmtree(folder, ignore_errors=True)
    except Exception as error:
        if full or (not isinstance(error, UserError) and is_full(error, output.parent)):
            raise OutputError(f"{output}: {_space(output)}") from error
        if isinstance(error, OSError) and not made:
            raise unwritable(output, error) from error
        raise


def remove_abandoned(parent: Path) -> None:
    """Remove what killed processes have left in a folder.

    A folder that was being replaced is put back if its successor is missing.
    """
    for lock in parent.glob(f".*.{_LOCK}"):
        with suppress(OSError, ValueError, LookupError, TypeError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # OSError: its process lives
            owner = json.loads(file.read())
            partial, before = _folders(lock)
            _put_back(before, parent / Path(owner["output"]).name)
            for folder in (partial, before):
                if folder.exists():
                    logger.info("removing %s, left by process %s of %s", folder, owner["pid"], owner["host"])
                    shutil.rmtree(folder)
            lock.unlink()


def _put_back(before: Path, output: Path) -> None:
    """Undo the first half of a replacement whose second half did not happen."""
    if before.exists() and not output.exists():
        before.rename(output)


def _folders(lock: Path) -> tuple[Path, Path]:
    """Return the folder that is being written, and the name that the one before it gets while it is replaced."""
    stem = lock.stem.removeprefix(".")
    return lock.with_name(f"{stem}.partial"), lock.with_name(f"{stem}.replaced")


@contextmanager
def _locked(path: Path, output: Path) -> Iterator[None]:
    """Hold the lock of an output folder; its content is written once it is held, so an empty file is never removed."""
    with path.open("x") as file:
        try:
            with suppress(OSError):  # no locks here: then no other process gets one either, and nothing is removed
                fcntl.flock(file, fcntl.LOCK_EX)
            file.write(to_json({"host": socket.gethostname(), "pid": os.getpid(), "output": output.name}))
            file.flush()
            yield
        finally:
            path.unlink(missing_ok=True)


def unwritable(output: Path, error: OSError) -> OutputError:
    """Return the error for a folder that cannot be created."""
    return OutputError(f"output = {output}: cannot be written: {error.strerror}. Pass another output folder")


def _space(output: Path) -> str:
    free = shutil.disk_usage(output.parent)
    return (
        f"no space left on the disk of {output.parent}: {free.free / 1e9:.3g} of its {free.total / 1e9:.3g} GB are free"
        " now that what was written is removed. Free space there, or pass an output folder on another disk"
    )
