"""Checks of outputs before any work."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from cove_dist.errors import ConfigError

_LONGEST_NAME = 64  # bytes of the longest names in a run folder, including temporary suffixes


def check_writable(folder: Path, key: str = "output") -> None:
    """Check that a run folder can be created and written to. Creates nothing.

    Args:
        folder: Run folder.
        key: Setting that names it.

    Raises:
        ConfigError: The folder is not writable; states the reason.
    """
    try:
        if not str(folder).strip():
            raise OSError(errno.EINVAL, "the name is blank")
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        names = folder.absolute().relative_to(there.absolute()).parts
        limits = (os.pathconf(there, "PC_NAME_MAX"), os.pathconf(there, "PC_PATH_MAX"))
        long = [name for name in names if len(os.fsencode(name)) > limits[0]]
        if long or len(os.fsencode(folder.absolute())) + 3 * _LONGEST_NAME > limits[1]:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
        if not there.is_dir():
            raise OSError(errno.ENOTDIR, f"{there} is a file")
        if not os.access(there, os.W_OK | os.X_OK):
            read_only = os.statvfs(there).f_flag & os.ST_RDONLY
            raise OSError(errno.EACCES, f"{there} is {'on a read-only file system' if read_only else 'not writable'}")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        shown = str(folder) if len(str(folder)) < 200 else f"{str(folder)[:100]}…"
        raise ConfigError(f"{key} = {shown}: {reason}; give a folder that can be written to") from error


def output_folder(default: Path, configured: str | None, marker: str, description: str) -> Path:
    """Return the output folder of a program, which may replace only its own earlier output.

    Args:
        default: Folder used if none is configured.
        configured: Value of the setting ``output``.
        marker: Name of a file that only this program writes.
        description: Description of the output, for the message.

    Raises:
        ConfigError: The folder exists and holds something else, or cannot be written to.
    """
    folder = default if configured is None else Path(configured)
    for each in (folder, folder.parent):
        check_writable(each)
    if folder.exists() and not (folder / marker).is_file():
        raise ConfigError(f"output = {folder}: exists and holds no {description}; remove it, or give another output")
    return folder
