"""Policy for a full disk: stop at once, or continue without the file that could not be written."""

from __future__ import annotations

import errno
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cove_dist.errors import DiskFullError

logger = logging.getLogger(__name__)

_FULL = re.compile(r"No space left|Disk quota exceeded", re.IGNORECASE)
_NEARLY_FULL = 1 << 20  # bytes; torch's archive writer then reports only "unexpected pos"


class FullDiskPolicy:
    """Policy for a full disk of the run folder.

    Args:
        choice: ``stop`` raises; ``warn`` logs a warning and continues.
    """

    def __init__(self, choice: Literal["stop", "warn"] = "stop") -> None:
        self._warns = choice == "warn"

    @contextmanager
    def guarding(self, path: Path, consequence: str) -> Iterator[None]:
        """Handle a full disk in the block; other errors propagate.

        Args:
            path: File or folder being written.
            consequence: Consequence of continuing, for the warning.

        Raises:
            DiskFullError: The disk is full and the policy is to stop.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, DiskFullError) or not is_full(error, path):
                raise
            self.handle(path, consequence, error)

    def handle(self, path: Path, consequence: str, error: BaseException) -> None:
        """Raise or warn, according to the policy.

        Raises:
            DiskFullError: The policy is to stop.
        """
        text = describe(path)
        if not self._warns:
            raise DiskFullError(
                f"{text}. Free space and continue with trainer.checkpoint.resume=auto, or ignore it with"
                " trainer.on_disk_full=warn"
            ) from error
        logger.warning("%s: %s", text, consequence)


def describe(path: Path) -> str:
    """Describe the full disk and its free space, naming the file."""
    disk = shutil.disk_usage(_existing(path))
    return f"{path}: no space left on device ({disk.free / 1e9:.3g} of {disk.total / 1e9:.3g} GB free)"


def is_full(error: BaseException | None, path: Path) -> bool:
    """Return whether an error while writing ``path``, or one of its causes, comes from a full disk."""
    nearly = shutil.disk_usage(_existing(path)).free < _NEARLY_FULL
    return error is not None and (nearly or any(_says_full(each) for each in _causes(error)))


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
