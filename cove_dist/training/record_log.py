"""``log.jsonl``: only whole lines are appended, and a full disk loses none of them once there is space again."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.runs import read_records
from data_pipeline.files import replaced_file
from data_pipeline.json_files import to_json

logger = logging.getLogger(__name__)


class RecordLog:
    """Appends records to a file as lines of JSON.

    Args:
        path: Path of the log.
        policy: Policy for a full disk; with ``warn``, records are kept and written with the next one.
    """

    def __init__(self, path: Path, policy: FullDiskPolicy) -> None:
        self._path, self._policy = path, policy
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        self._waiting = b""

    def add(self, record: dict[str, Any]) -> None:
        """Write a record and earlier ones that could not be written.

        Raises:
            DiskFullError: The disk is full and the policy is to stop.
        """
        self._waiting += (to_json(record) + "\n").encode()
        with self._policy.guarding(self._path, "records are kept in memory and written when there is space again"):
            self._write()

    def close(self) -> None:
        """Write the remaining records.

        Raises:
            DiskFullError: As in `add`.
        """
        try:
            if self._waiting:
                with self._policy.guarding(self._path, "the last records are lost"):
                    self._write()
        finally:
            os.close(self._file)

    def _write(self) -> None:
        whole = os.fstat(self._file).st_size
        rest = self._waiting
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError:
            os.ftruncate(self._file, whole)  # a partial line would corrupt the lines after it
            raise
        self._waiting = b""


def drop_records_after(path: Path, step: int) -> None:
    """Keep the records up to ``step``; a run resumed there writes the later ones again."""
    text = path.read_bytes() if path.is_file() else b""
    if text and not text.endswith(b"\n"):
        logger.warning("%s: dropping its last line, which is incomplete", path)
    kept = [record for record in read_records(path) if record["step"] <= step]
    with replaced_file(path) as file:
        file.write_text("".join(to_json(record) + "\n" for record in kept))
