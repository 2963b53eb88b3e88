"""The folder that preparation writes: checked before any work, complete or absent, and replaced only where it may be.

While a folder is being written, it is ``NAME.TOKEN.partial``, next to a lock file ``.NAME.TOKEN.preparing``. The
system gives up the lock when its process ends, however it ends, so later preparations remove what a killed one left.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.json_files import to_json
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)

_OWN = ("schema.json", "report.json")
_FULL = re.compile(r"No space left|Disk quota exceeded|max_temp_directory_size", re.IGNORECASE)
_LONGEST = 180  # bytes of a name, so that the names derived from it are allowed as well
_LOCK = "preparing"


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output folder that cannot be written, or that is not to be replaced.

    Raises:
        DataError: It exists and ``overwrite`` is false, or it has files that preparation did not write.
    """
    try:
        exists = output.exists() or output.is_symlink()
    except OSError as error:
        raise _unwritable(output, error) from error
    if not exists:
        return
    if not overwrite:
        raise DataError(f"{output}: already exists. Pass overwrite=true to replace it, or another output folder")
    if foreign := _foreign(output):
        raise DataError(f"{output}: {foreign}, so it is not overwritten. Remove it yourself, or pass another output")


def _foreign(output: Path) -> str:
    """Return why a folder is not, or not only, what preparation wrote; empty if it is."""
    if output.is_symlink() or not output.is_dir():
        return "not a folder"
    if not (output / "schema.json").is_file():
        return "not a prepared data set (it has no schema.json)"
    try:
        schema = Schema.load(output)
    except DataError as error:
        return f"not a prepared data set ({error})"
    if schema.described:
        return "its files are described by schema.json, but preparation did not write them"
    written = {*schema.digests, *_OWN}
    if len(written) == len(_OWN):
        return "its schema.json does not list the files that preparation wrote"
    found = (path for path in sorted(output.rglob("*")) if path.is_symlink() or not path.is_dir())
    others = [name for path in found if (name := path.relative_to(output).as_posix()) not in written]
    return f"has {len(others)} files that preparation did not write, such as {others[0]}" if others else ""


@contextmanager
def prepared_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder to write to, and rename it to ``output`` when the block ends; after an error remove it.

    What killed preparations left in the same place is removed first.

    Raises:
        DataError: The folder cannot be made, or the disk is full.
    """
    token = secrets.token_hex(4)
    stem = f"{output.name.encode()[:_LONGEST].decode(errors='ignore')}.{token}"
    lock = output.with_name(f".{stem}.{_LOCK}")
    partial, before = _folders(lock)
    made = False
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
            finally:
                _put_back(before, output)
                for folder in (partial, before):
                    shutil.rmtree(folder, ignore_errors=True)
    except Exception as error:
        if _is_full(error):
            raise DataError(f"{output}: {_space(output)}") from error
        if isinstance(error, OSError) and not made:
            raise _unwritable(output, error) from error
        raise


def remove_abandoned(parent: Path) -> None:
    """Remove what preparations that were killed have left in a folder.

    A prepared folder that was being replaced is put back where its successor is missing.
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


def _unwritable(output: Path, error: OSError) -> DataError:
    return DataError(f"output = {output}: cannot be written: {error.strerror}. Pass another output folder")


def _is_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, says that there is no space left."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _space(output: Path) -> str:
    free = shutil.disk_usage(output.parent)
    return (
        f"no space left on the disk of {output.parent}: {free.free / 1e9:.3g} of its {free.total / 1e9:.3g} GB are free"
        " now that what was written is removed. Free space there, or pass an output folder on another disk"
    )
