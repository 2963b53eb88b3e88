"""Find the raw files that ``data.source`` names: paths, globs, folders, lists of them, and addresses.

An address (``https://…``, ``s3://…``, ``gs://…``, or any other that fsspec knows) is downloaded into the scratch folder
of the preparation. It may be a folder or a glob where the storage lists files: ``s3://bucket/day=*/*.parquet``.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import copy_response
from data_pipeline.preparation.formats import kind_of
from data_pipeline.preparation.local_files import is_hidden, is_pattern, listed_files
from data_pipeline.preparation.workspace import Workspace

_TIMEOUT = 20  # seconds without an answer
_EXTRAS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hdfs": "pyarrow"}

Sources = str | tuple[str, ...]
Parts = dict[str, Sources | None]  # the files of a ready-made split


def described(source: Sources) -> str:
    """Return the text by which messages and reports name a source."""
    return ", ".join(map(without_queries, (source,) if isinstance(source, str) else source))


def without_queries(text: str) -> str:
    """Return a text whose web addresses have a hash in the place of their query, which may hold a password.

    Example:
        >>> without_queries("https://host/export.csv.gz?token=1")
        'https://host/export.csv.gz?query_212b674c'
    """
    return re.sub(r"(https?://[^\s?'\"]+)\?([^\s'\"]*)", lambda found: f"{found[1]}?query_{_hash(found[2])}", text)


def _hash(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()[:8]


def described_parts(source: Sources | None, parts: Parts) -> str:
    """Return the text by which reports name a source, or the files of a split."""
    if source is not None:
        return described(source)
    return "; ".join(f"{name}: {described(files)}" for name, files in parts.items() if files is not None)


def check_parts(key: str, source: Sources | None, parts: Parts) -> None:
    """Refuse a source together with the files of a ready-made split, and a split without training or test files.

    Raises:
        DataError: With the keys to set.
    """
    given = [name for name, files in parts.items() if files is not None]
    if source is not None and given:
        raise DataError(
            f"data.{key} = {described(source)}, and files of {', '.join(given)}: set data.{key}=null, or them"
        )
    if source is None and not {"train", "test"} <= set(given):
        raise DataError(f"data.{key} = null: set it, or data.train and data.test (data.validation_file may be null)")


def find_parts(source: Sources | None, parts: Parts, workspace: Workspace) -> dict[str, list[Path]]:
    """Find the files of a source (part "all"), or of a ready-made split.

    Raises:
        DataError: See `find_files`; or a file is in two parts.
    """
    if source is not None:
        return {"all": find_files(source, workspace)}
    found = {name: find_files(files, workspace) for name, files in parts.items() if files is not None}
    seen: dict[Path, str] = {}
    for name, files in found.items():
        for file in files:
            if (other := seen.setdefault(file.resolve(), name)) != name:
                raise DataError(f"{file}: is in data.{other} and in {name}. A file belongs to one split")
    return found


def find_files(source: Sources, workspace: Workspace | None = None) -> list[Path]:
    """Find the files of a source, each once; those of a folder or a glob are sorted by name.

    In a folder, files are looked for in all its subfolders; names that begin with a dot or an underscore are left out.

    Args:
        source: A path, a glob, a folder or an address, or several of them.
        workspace: Workspace for downloads.

    Raises:
        DataError: There is no file, a file is empty or cannot be downloaded, or the files are of several kinds.
    """
    sources = [source] if isinstance(source, str) else list(source)
    files = _distinct([file for each in sources for file in _found(each, workspace)], workspace)
    if not files:
        raise DataError("data.source = []: names no file. Give a path, a glob, a folder or an address")
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file}: the file is empty (0 bytes). Write it again, or leave it out of data.source")
    kinds = {kind_of(file): file for file in reversed(files)}
    if len(kinds) > 1:
        examples = " and ".join(f"{kind} ({file.name})" for kind, file in kinds.items())
        raise DataError(f"{described(source)}: files of several kinds: {examples}. Narrow data.source to one kind")
    return files


def _distinct(files: list[Path], workspace: Workspace | None) -> list[Path]:
    """Return every file once, at its first place, and warn of those that are named several times."""
    by_path: dict[Path, Path] = {}
    repeated = [file for file in files if by_path.setdefault(file.resolve(), file) is not file]
    if repeated and workspace is not None:
        workspace.warn(
            f"data.source names files more than once ({len(repeated)} repeats, such as {repeated[0]});"
            " each is read once"
        )
    return list(by_path.values())


def _found(source: str, workspace: Workspace | None) -> Iterator[Path]:
    if "://" in source:
        if workspace is None:
            raise DataError(f"{source}: an address cannot be read here. Download it, and give the path")
        return _download(source, workspace)
    if (
        workspace is not None
        and Path(source).is_dir()
        and Path(source).resolve() in workspace.scratch.resolve().parents
    ):
        raise DataError(
            f"{source}: the output folder is inside it, and all files of a folder are read. Pass an output folder"
            " outside of data.source, or name the files by a pattern"
        )
    return iter(_local(source))


def _local(source: str) -> list[Path]:
    files = listed_files(source)
    if not files:
        if Path(source).is_dir():
            raise DataError(f"{source}: the folder contains no files. Correct data.source")
        reason = "no file matches this pattern" if is_pattern(source) else "no such file"
        raise DataError(f"{source}: {reason}. Correct data.source; relative paths start at {Path.cwd()}")
    return files


def remote_folder(workspace: Workspace) -> Path:
    """Return the folder that addresses are downloaded to: ``scheme/host/path`` in it is ``scheme://host/path``."""
    return workspace.scratch / "remote"


def with_addresses(message: str, workspace: Workspace) -> str:
    """Return a message with the addresses of downloaded files instead of their paths."""
    before, *parts = message.split(f"{remote_folder(workspace)}/")
    return before + "".join(part.replace("/", "://", 1) for part in parts)


def _download(source: str, workspace: Workspace) -> Iterator[Path]:
    scheme, rest = source.split("://", 1)
    if scheme in ("http", "https"):
        yield _download_one(workspace, scheme, _web_path(source), source, _open_http, copy_response)
        return
    system = _file_system(scheme, source)
    try:
        if any(character in rest for character in "*?["):
            names = sorted(system.glob(source))
        elif system.isdir(source):
            names = [name for name in sorted(system.find(source)) if not is_hidden(Path(name.split(rest, 1)[-1]))]
        else:
            names = [source]
    except Exception as error:
        raise _unreachable(source, error) from error
    if not names:
        raise DataError(f"{source}: no file matches. Correct data.source")
    for name in names:
        path = name.split("://", 1)[-1].lstrip("/")
        yield _download_one(workspace, scheme, path, name, lambda address: system.open(address, "rb"))


def _web_path(address: str) -> str:
    """Return host and path of a web address; the name contains a hash of the query, if there is one.

    A query, which may hold a password, is not shown in messages.

    Example:
        >>> _web_path("https://host/export.csv.gz?day=1")
        'host/export.query_51234957.csv.gz'
    """
    parts = urlsplit(address)
    if not parts.query:
        return parts.netloc + parts.path
    folder, slash, name = parts.path.rpartition("/")
    stem, dot, suffixes = name.partition(".")
    return f"{parts.netloc}{folder}{slash}{stem}.query_{_hash(parts.query)}{dot}{suffixes}"


def _download_one(
    workspace: Workspace,
    scheme: str,
    path: str,
    address: str,
    opened: Callable[[str], Any],
    copy: Callable[[Any, BinaryIO], None] = shutil.copyfileobj,
) -> Path:
    target = remote_folder(workspace) / scheme / path
    if target.exists():  # of this preparation before it was ended, or named twice
        return target
    part = target.with_name(f"{target.name}.part")
    workspace.on_progress(f"downloading {scheme}://{path}")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with opened(address) as stream, part.open("wb") as file:
            copy(stream, file)
        part.rename(target)
    except DataError:
        raise
    except Exception as error:  # storage backends raise different errors
        raise _unreachable(f"{scheme}://{path}", error) from error
    return target


def _open_http(address: str) -> Any:
    return urllib.request.urlopen(address, timeout=_TIMEOUT)


def _file_system(scheme: str, source: str) -> Any:
    try:
        import fsspec

        return fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        package = _EXTRAS.get(scheme)
        remedy = f"Install it: pip install {package}" if package else "Give a path, or https://, s3:// or gs://"
        raise DataError(f"{source}: addresses of {scheme}:// cannot be read: {error}. {remedy}") from error


def _unreachable(address: str, error: Exception) -> DataError:
    reason = "no such file" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
    return DataError(f"{address}: cannot be downloaded: {reason}. Correct data.source, or check access and connection")
