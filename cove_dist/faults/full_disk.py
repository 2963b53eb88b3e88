"""Policy for a full disk: stop at once, or continue without the file that could not be written."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cove_dist.errors import DiskFullError
from data_pipeline.full_disk import describe, is_full

logger = logging.getLogger(__name__)


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
