"""The scratch folder of a preparation that can be resumed: kept when it is ended, for the same data and settings."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import duckdb

from data_pipeline.errors import DataError, OutputError
from data_pipeline.json_files import to_json, write_json
from data_pipeline.preparation.dataset import Dataset
from data_pipeline.preparation.inputs import without_queries

_REMEDY = "Remove this folder, or pass resume=false"
_IDENTITY, _LOCK = "identity.json", "lock"


@contextmanager
def removed_scratch(folder: Path) -> Iterator[Path]:
    """Yield a folder in ``folder``, and remove it when the block ends in any way."""
    scratch = folder / "scratch"
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def kept_scratch(
    output: Path, dataset: Dataset, name: str, seed: int, on_progress: Callable[[str], None]
) -> Iterator[Path]:
    """Yield ``OUTPUT.resume``, and remove it when the block ends or the data are refused; other errors keep it.

    Args:
        output: The folder that is prepared.
        dataset: The data set.
        name: Name of the data set.
        seed: Seed of the preparation.
        on_progress: Receives one line if the folder is kept.

    Raises:
        OutputError: The folder is in use, is not one of a preparation, is damaged, or was begun with other settings,
            files or versions.
    """
    folder = _folder_of(output)
    _check_own(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise OutputError(f"{folder}: another preparation uses it. Wait for it, or pass another output") from error
        _check_identity(folder / _IDENTITY, json.loads(to_json(_identity(dataset, name, seed))))
        try:
            yield folder
        except DataError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except OutputError:  # it says what to do
            raise
        except BaseException:
            on_progress(f"{folder} is kept: the same command goes on from there")
            raise
        shutil.rmtree(folder, ignore_errors=True)


def mention_kept(output: Path, on_progress: Callable[[str], None]) -> None:
    """Say that an earlier preparation was ended and left its tables, which this one does not go on from."""
    folder = _folder_of(output)
    if (folder / _IDENTITY).is_file():
        on_progress(f"{folder} is left as it is: resume=true goes on from there. Remove it if you do not need it")


def _folder_of(output: Path) -> Path:
    return output.with_name(f"{output.name[:80]}.resume")


def _check_own(folder: Path) -> None:
    """Refuse a folder that preparation did not make: it is removed at the end."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() and not folder.is_symlink() else {""}
    if names - {_LOCK} and _IDENTITY not in names:
        raise OutputError(f"{folder}: was not made by a preparation, which needs this name. {_REMEDY}")


def _check_identity(path: Path, identity: dict[str, Any]) -> None:
    if not path.exists():  # new, or its process was killed before it began
        write_json(path, identity)
        return
    try:
        kept = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise OutputError(f"{path}: damaged: {error}. {_REMEDY}") from error
    for name in sorted(kept.keys() | identity.keys()):
        if kept.get(name) != identity.get(name):
            was = f"another {name} ({kept.get(name)}, now {identity.get(name)})"
            raise OutputError(f"{path.parent}: was begun with {was}. {_REMEDY}")


def _identity(dataset: Dataset, name: str, seed: int) -> dict[str, Any]:
    """Return what the tables depend on: settings and versions. `Workspace.reads` notes the files that are read."""
    settings = {f"data.{field.name}": getattr(dataset, field.name) for field in fields(dataset)}
    settings.pop("data.memory_gb", None)  # more memory, and go on
    kind = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
    texts = {key: without_queries(repr(value)) for key, value in settings.items()}
    return {"data": kind, "data.name": name, "seed": seed, "version of duckdb": duckdb.__version__, **texts}
