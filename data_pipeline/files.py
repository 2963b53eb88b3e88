"""Files that are complete or absent: written under another name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_pipeline.errors import OutputError, UserError
from data_pipeline.full_disk import describe, is_full


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, and rename it to ``path`` when the block ends: readers never see half of a file.

    After an error ``path`` is unchanged. The temporary name contains the process id, so that several processes may
    write the same file.

    Raises:
        OutputError: The file cannot be created, or the disk is full.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):  # a pipe or a terminal, such as /dev/stdout
        yield path
        return
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        partial.rename(path)
    except Exception as error:
        if not isinstance(error, UserError) and is_full(error, path):
            raise OutputError(f"{describe(path)}. Free space there, or give another output") from error
        if isinstance(error, OSError) and error.filename == str(partial):
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from error
        raise
    finally:
        with suppress(OSError):  # such as a name that is too long: then it was not created
            partial.unlink()
