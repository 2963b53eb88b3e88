"""Files that are written again and again while others read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, and rename it to ``path`` when the block ends: nobody reads half of a file.

    After an error ``path`` is what it was. The name contains the process id: another process may write the same file.
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
