"""The folder that preparation writes: checked before any work, and replaced only if preparation wrote it."""

from __future__ import annotations

from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.folders import unwritable
from data_pipeline.schema import Schema

_OWN = ("schema.json", "report.json")


def check_output(output: Path, overwrite: bool) -> None:
    """Refuse an output folder that cannot be written, or that is not to be replaced.

    Raises:
        OutputError: It cannot be written.
        DataError: It exists and ``overwrite`` is false, or it has files that preparation did not write.
    """
    try:
        exists = output.exists() or output.is_symlink()
    except OSError as error:
        raise unwritable(output, error) from error
    if not exists:
        return
    if not overwrite:
        raise DataError(f"{output}: already exists. Pass overwrite=true to replace it, or another output folder")
    if foreign := _foreign(output):
        raise DataError(f"{output}: {foreign}, so it is not overwritten. Remove it yourself, or pass another output")


def _foreign(output: Path) -> str:
    """Return why a folder is not, or not only, what preparation wrote; empty if it is."""
    if output.is_symlink() or not output.is_dir():
        return "not a folder"
    if not (output / "schema.json").is_file():
        return "not a prepared data set (it has no schema.json)"
    try:
        schema = Schema.load(output)
    except DataError as error:
        return f"not a prepared data set ({error})"
    if schema.described:
        return "its files are described by schema.json, but preparation did not write them"
    written = {*schema.digests, *_OWN}
    if len(written) == len(_OWN):
        return "its schema.json does not list the files that preparation wrote"
    found = (path for path in sorted(output.rglob("*")) if path.is_symlink() or not path.is_dir())
    others = [name for path in found if (name := path.relative_to(output).as_posix()) not in written]
    return f"has {len(others)} files that preparation did not write, such as {others[0]}" if others else ""
