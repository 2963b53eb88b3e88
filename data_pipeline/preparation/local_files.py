"""The files of a path, a folder or a glob on this machine."""

from __future__ import annotations

import glob
from pathlib import Path


def listed_files(source: str) -> list[Path]:
    """Return a file, or the files of a folder or glob sorted by name; none where there are none.

    In a folder, files are looked for in all its subfolders; names that begin with a dot or an underscore are left out.
    """
    path = Path(source)
    if path.is_dir():
        return [file for file in sorted(path.rglob("*")) if file.is_file() and not is_hidden(file.relative_to(path))]
    found = sorted(map(Path, glob.glob(source, recursive=True))) if is_pattern(source) else [path]
    return [file for file in found if file.is_file()]


def is_pattern(source: str) -> bool:
    """Return whether a source is a glob: a file may have a name with brackets."""
    return not Path(source).exists() and any(character in source for character in "*?[")


def is_hidden(name: Path) -> bool:
    """Return whether a name below a folder is one that Spark and others hide; folders such as ``_day=3`` are not."""
    return any(part.startswith((".", "_")) and "=" not in part for part in name.parts)
