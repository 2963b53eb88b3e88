"""Files and folders that are complete or absent: written under another name, then renamed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, and rename it to ``path`` when the block ends: readers never see half of a file.

    After an error ``path`` is unchanged. The temporary name contains the process id, so that several processes may
    write the same file.
    """
    if path.exists() and not path.is_file():  # a pipe or a terminal, such as /dev/stdout
        yield path
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.rename(path)
    finally:
        partial.unlink(missing_ok=True)


def replace_folder(complete: Path, folder: Path) -> None:
    """Rename ``complete`` to ``folder``, and remove the folder that was there before."""
    before = folder.with_name(f"{folder.name}.{os.getpid()}.replaced")
    if folder.exists():
        folder.rename(before)
    complete.rename(folder)
    shutil.rmtree(before, ignore_errors=True)
