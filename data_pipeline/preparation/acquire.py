"""Find the raw files of a public data set: at a path or URL, or else download them from the publisher."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from data_pipeline.errors import DataError

_TIMEOUT = 20  # seconds without an answer


class Mirror(ABC):
    """A place from which an archive can be downloaded. Only complete archives are cached."""

    @property
    @abstractmethod
    def filename(self) -> str:
        """Name of the archive in the cache."""

    def fetch(self, cache: Path) -> Path:
        """Return the archive in ``cache``, downloading it first unless an intact copy is there.

        Raises:
            DataError: The downloaded archive has the wrong checksum.
            OSError: The mirror cannot be reached.
        """
        target = cache / self.filename
        if target.is_file() and self.is_intact(target):
            return target
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            part = self.download(Path(folder))
            if not self.is_intact(part):
                raise DataError("the downloaded archive has the wrong checksum")
            os.replace(part, target)
        return target

    @abstractmethod
    def download(self, folder: Path) -> Path:
        """Download the archive into ``folder`` and return its path."""

    @abstractmethod
    def is_intact(self, archive: Path) -> bool:
        """Return whether an archive has the expected checksum."""


def copy_response(response: Any, file: BinaryIO) -> None:
    """Copy the body of a web response into a file.

    Raises:
        OSError: The connection ended before the length that the server announced, which reading in parts accepts.
    """
    shutil.copyfileobj(response, file, 1 << 20)
    if left := getattr(response, "length", None):  # of http; files and FTP have none
        raise OSError(f"the connection ended {left:,} bytes before the end of the file")


@dataclass(frozen=True)
class Download(Mirror):
    """A zip file at a URL.

    Attributes:
        url: URL of the zip file.
        sha256: Its digest, if the publisher states one.
    """

    url: str
    sha256: str | None = None

    def __str__(self) -> str:
        return self.url

    @property
    def filename(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    def download(self, folder: Path) -> Path:
        part = folder / "part"
        with urllib.request.urlopen(self.url, timeout=_TIMEOUT) as response, part.open("wb") as file:
            copy_response(response, file)
        return part

    def is_intact(self, archive: Path) -> bool:
        return self.sha256 is None or hashlib.sha256(archive.read_bytes()).hexdigest() == self.sha256


@dataclass(frozen=True)
class Wheel(Mirror):
    """Files in a wheel on the Python package index, downloaded by pip.

    Attributes:
        requirement: Requirement of pip, such as ``recbole==1.2.1``.
        wheel: Name of the wheel file.
        sha256: The digest of each file, by its name in the wheel.
    """

    requirement: str
    wheel: str
    sha256: Mapping[str, str]

    @property
    def filename(self) -> str:
        return self.wheel

    def __str__(self) -> str:
        return f"the wheel {self.requirement}"

    def download(self, folder: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        done = subprocess.run([*command, "--dest", str(folder), self.requirement], capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"pip download: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
        return next(folder.glob("*.whl"))

    def is_intact(self, archive: Path) -> bool:
        try:
            with zipfile.ZipFile(archive) as wheel:
                digests = {member: hashlib.sha256(wheel.read(member)).hexdigest() for member in self.sha256}
        except (zipfile.BadZipFile, KeyError):  # KeyError: a file is missing
            return False
        return digests == dict(self.sha256)


def acquire(
    source: str | None, mirrors: Sequence[Mirror], scratch: Path, on_progress: Callable[[str], None]
) -> tuple[Path, str]:
    """Find a data set's raw files.

    Args:
        source: A folder, a file, a zip, or a URL of a zip; None: the first of ``mirrors`` that answers.
        mirrors: Places where the data set is published, in order of preference. Failures go to ``on_progress``.
        scratch: A folder to unpack into.
        on_progress: Receives one line of progress at a time.

    Returns:
        A folder with the files (or the one file that ``source`` names), and a description of where they come from.

    Raises:
        DataError: ``source`` does not exist or is not a zip, or no mirror answers.
    """
    if source is not None and "://" not in source:
        return _local(Path(source), scratch), source
    cache = cache_folder() if source is None else scratch  # a copy without a checksum is not cached
    failures = []
    for mirror in mirrors if source is None else [Download(source)]:
        on_progress(f"downloading {mirror}")
        try:
            return _unpack(mirror.fetch(cache), scratch), str(mirror)
        except (OSError, HTTPException, DataError) as error:
            failures.append(f"{mirror}: {error}")
            on_progress(f"not available: {failures[-1]}")
    raise DataError(
        f"the data set cannot be downloaded: {'; '.join(failures)}. Download it by hand and pass data.source=PATH"
    )


def cache_folder() -> Path:
    """Return ``$XDG_CACHE_HOME/cove_dist``, by default ``~/.cache/cove_dist``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cove_dist"


def _local(path: Path, scratch: Path) -> Path:
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Correct data.source; relative paths start at {Path.cwd()}")
    return _unpack(path, scratch) if path.suffix.lower() == ".zip" else path


def _unpack(archive: Path, scratch: Path) -> Path:
    folder = scratch / "unpacked"
    try:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
    except zipfile.BadZipFile as error:
        raise DataError(f"{archive}: not a zip file, or a truncated one: {error}. Download it again") from error
    return folder
