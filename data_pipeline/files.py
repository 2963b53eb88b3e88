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


@contextmanager
def replaced_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder to write to, and rename it to ``folder`` when the block ends.

    After an error ``folder`` is unchanged. Only one process may write a folder at a time. Ranks that write one folder
    together call `start_partial_folder` and `finish_partial_folder` on the main rank, with barriers between them.
    """
    partial = start_partial_folder(folder)
    try:
        yield partial
        finish_partial_folder(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def partial_path(folder: Path) -> Path:
    """Return where the contents of ``folder`` are written until they are complete."""
    return folder.with_name(f"{folder.name}.partial")


def start_partial_folder(folder: Path) -> Path:
    """Create an empty folder at `partial_path`, without what an interrupted process may have left there."""
    partial = partial_path(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    return partial


def finish_partial_folder(folder: Path) -> None:
    """Rename the folder at `partial_path` to ``folder``, and remove the one that was there before."""
    replaced = folder.with_name(f"{folder.name}.replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    partial_path(folder).rename(folder)
    shutil.rmtree(replaced, ignore_errors=True)
