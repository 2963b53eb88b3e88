"""Recognize and describe a full disk, which libraries report in many ways."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_FULL = re.compile(r"No space left|Disk quota exceeded|max_temp_directory_size", re.IGNORECASE)
_NEARLY_FULL = 1 << 20  # bytes; torch's archive writer then reports only "unexpected pos"


def is_full(error: BaseException | None, path: Path) -> bool:
    """Return whether an error while writing ``path``, or one of its causes, comes from a full disk."""
    disk = shutil.disk_usage(_existing(path))
    nearly = disk.total > 0 and disk.free < _NEARLY_FULL  # /proc has no size
    return error is not None and (nearly or any(_says_full(each) for each in _causes(error)))


def describe(path: Path) -> str:
    """Describe the full disk and its free space, naming the file."""
    disk = shutil.disk_usage(_existing(path))
    return f"{path}: no space left on device ({disk.free / 1e9:.3g} of {disk.total / 1e9:.3g} GB free)"


def _says_full(error: BaseException) -> bool:
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)) is not None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        for failure in getattr(error, "failures", {}).values():  # per rank, in torch's CheckpointException
            yield from _causes(failure[0])
        error = error.__cause__ or error.__context__


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.absolute().parents) if each.exists())
