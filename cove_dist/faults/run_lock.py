"""Only one training per run folder at a time."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

from cove_dist.errors import ConfigError
from data_pipeline.json_files import to_json

logger = logging.getLogger(__name__)

LOCK_FILE = "run.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process. The lock is released when the process ends for any reason.

    The file names its owner. The kernel holds the lock, so files of dead processes on this host are recognized; a file
    of another host is trusted, because file systems differ in locking across hosts.

    Raises:
        ConfigError: Another process trains there, or one on another host did not end cleanly.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / LOCK_FILE
    with _acquired(path) as file:
        before = _owner(file)
        if before and not _is_ours(before):
            raise ConfigError(
                f"output = {folder}: {_described(before)} trains there, or was lost. If nothing runs there any more,"
                f" remove {path}"
            )
        if before:
            logger.info("%s ended without releasing its lock; taking over %s", _described(before), folder)
        file.truncate(0)
        file.write(to_json(_this_process()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            if made and not any(folder.iterdir()):  # the run was refused before writing anything
                folder.rmdir()


def _acquired(path: Path) -> IO[str]:
    """Open and lock a file that still has its name: its last holder may have removed it meanwhile."""
    while True:
        file = path.open("a+")
        try:
            _acquire(file, path.parent)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except BaseException:
            file.close()
            raise
        file.close()


def _acquire(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _described(_owner(file))
        raise ConfigError(
            f"output = {folder}: {owner} trains there at this moment; wait for it, or give another output"
        ) from None
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
            raise
        logger.warning("%s: the file system has no locks (%s); do not train there twice", folder, error.strerror)


def _owner(file: IO[str]) -> dict[str, Any]:
    file.seek(0)
    try:
        owner = json.loads(file.read() or "{}")
    except ValueError:  # the process was killed while writing it
        return {}
    return owner if isinstance(owner, dict) else {}


def _this_process() -> dict[str, Any]:
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since, "job": _job()}


def _job() -> str | None:
    """Return the name of torchrun's job, by which an attempt on another host knows the one before; None without one."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name in (None, "none") else name


def _is_ours(owner: dict[str, Any]) -> bool:
    return owner.get("host") == socket.gethostname() or (owner.get("job") is not None and owner.get("job") == _job())


def _described(owner: dict[str, Any]) -> str:
    if not owner:
        return "another process"
    return f"process {owner.get('pid')} on {owner.get('host')} (since {owner.get('since')})"
