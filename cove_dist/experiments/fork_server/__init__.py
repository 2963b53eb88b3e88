"""A Python that has imported the programs: a cell or a trial starts in 0.1 s instead of 5 s of CPU for imports.

`executable` names a program that stands for ``python``. It hands its arguments, environment, folder and standard
streams to a server (`server.py`), which forks a process for it, and passes signals and the exit code on (`client.py`).
In the forked process ``sys.executable`` is that program again, so what it starts, such as the ranks of torchrun, starts
as fast.

A forked process cannot use CUDA once an imported library has initialized it. On a machine with CUDA, and where the
server cannot run, programs start as ordinary processes.
"""

from __future__ import annotations

import atexit
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from threading import Lock

import torch

logger = logging.getLogger(__name__)

MODULES = ("torch.utils.tensorboard", "cove_dist.commands.train", "cove_dist.commands.evaluate")
_ROOT = Path(__file__).resolve().parents[3]
_SOCKET, _LOG, _PYTHON = "socket", "log", "python"  # files of a server
_starting = Lock()


def executable(modules: Sequence[str] = MODULES) -> str:
    """Return a program that takes the arguments of ``python``: a script, ``-m module`` or ``-c code``.

    The first call starts the server, which ends with this process and then kills the programs that still run.

    Args:
        modules: Modules that the server imports.

    Returns:
        The path of the program; ``sys.executable`` in a forked process, and where programs cannot be forked.
    """
    if Path(sys.executable).with_name(_SOCKET).is_socket():
        return sys.executable
    with _starting:
        return _start(tuple(modules))


@cache
def _start(modules: tuple[str, ...]) -> str:
    if torch.cuda.is_available() or not _can_watch_processes():
        return sys.executable
    folder = Path(tempfile.mkdtemp(prefix="fork-server-"))  # the server removes it
    try:
        server = _serve(folder, modules)
    except OSError as error:  # such as a path that is too long for a socket
        return _ordinary(str(error), folder)
    assert server.stdout is not None
    if not server.stdout.readline():
        return _ordinary((folder / _LOG).read_text().strip().rpartition("\n")[2], folder)
    atexit.register(_end, server)
    python = folder / _PYTHON
    client = [sys.executable, "-IS", str(Path(__file__).with_name("client.py")), str(folder), str(python)]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
    python.chmod(0o755)
    return str(python)


def _ordinary(reason: str, folder: Path) -> str:
    shutil.rmtree(folder)
    logger.warning("Programs import all modules again: the server that would fork them did not start: %s", reason)
    return sys.executable


def _can_watch_processes() -> bool:
    """Return whether this system, Linux 5.3 or later, tells by a file descriptor that a process has ended."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


def _serve(folder: Path, modules: Sequence[str]) -> subprocess.Popen[bytes]:
    paths = [str(_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    with socket.socket(socket.AF_UNIX) as listener, (folder / _LOG).open("w") as log:
        listener.bind(str(folder / _SOCKET))
        listener.listen(64)
        return subprocess.Popen(
            [sys.executable, "-m", f"{__name__}.server", str(folder), str(listener.fileno()), *modules],
            stdin=subprocess.PIPE,  # whose end is the end of this process
            stdout=subprocess.PIPE,  # a line when everything is imported
            stderr=log,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
            pass_fds=(listener.fileno(),),
            start_new_session=True,
        )


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait()
