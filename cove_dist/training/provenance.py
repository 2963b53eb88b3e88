"""``provenance.json``: by which command, code, packages and machine a run was made, one record per start.

Environment variables are not recorded, and values of arguments that look like secrets are masked.
"""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
import sys
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import Any

import torch

import cove_dist
from cove_dist.distributed import DistributedContext
from cove_dist.doctor import EXTRAS, find_version, installed_versions
from cove_dist.runs import PROVENANCE_FILE, read_json
from data_pipeline.json_files import write_json

_SECRET = re.compile(r"(?i)([\w.]*(?:api_?key|token|password|secret|credential)[\w.]*[=:]\s*)[^\s,}]+")
_GIT_SECONDS = 5  # after which the state of a repository counts as unknown


def record_start(
    folder: Path, step: int, data: str, fingerprint: str, context: DistributedContext, *, resumed: bool
) -> None:
    """Append this start to ``provenance.json``: a run has one, and one more for every time it is resumed.

    Args:
        folder: Run folder.
        step: Step at which training starts.
        data: Path of the prepared data.
        fingerprint: Digest of the prepared data.
        context: Context of this rank.
        resumed: Whether a checkpoint is resumed, which may be of step 0; otherwise a new history starts.
    """
    path = folder / PROVENANCE_FILE
    starts = read_json(path).get("starts", []) if resumed else []
    write_json(path, {"starts": [*starts, describe(step, data, fingerprint, context)]})


def describe(step: int, data: str, fingerprint: str, context: DistributedContext) -> dict[str, Any]:
    """Return the record of a start, as plain values; see `record_start`."""
    cuda = context.device.type == "cuda"
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "step": step,
        "command": [masked(argument) for argument in sys.orig_argv],
        "folder": os.getcwd(),
        "git": {"package": package_repository(), "folder": repository(Path.cwd())},
        "cove_dist": cove_dist.__version__,
        "packages": _packages(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "device": torch.cuda.get_device_name(context.device) if cuda else f"cpu ({os.cpu_count()} cores)",
        "world_size": context.world_size,
        "threads": torch.get_num_threads(),
        "data": {"path": str(Path(data).absolute()), "fingerprint": fingerprint},
    }


@cache  # reading the metadata of all packages takes longer than the rest of the record
def _packages() -> dict[str, str]:
    optional = {name: find_version(name) for names, _ in EXTRAS.values() for name in names}
    return {name: number for name, number in (installed_versions() | optional).items() if number}


def masked(argument: str) -> str:
    """Return an argument of the command line with the values of keys that look like secrets replaced by ``***``.

    Example:
        >>> masked("+trainer.loggers.mine.api_key=abc123")
        '+trainer.loggers.mine.api_key=***'
    """
    return _SECRET.sub(r"\1***", argument)


@cache
def package_repository() -> dict[str, Any] | None:
    """Return `repository` of this package, as first asked for in this process or the one that it was forked from."""
    return repository(Path(cove_dist.__file__).parent)


def repository(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the git repository that tracks a folder, and whether tracked files differ from it.

    Returns:
        ``commit`` and ``dirty`` (None: git did not answer in time); None without git, a repository or a commit.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit or not _git(folder, "ls-files"):  # a folder that a repository ignores, such as an environment's
        return None
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": None if changed is None else bool(changed)}


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what a git command prints; None if it fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
