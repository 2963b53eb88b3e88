"""A Python that has imported everything: it starts a program in 0.1 s, where the imports alone take 6 s of CPU.

`executable` names a program that stands for ``python``. It hands its arguments, environment, folder and standard
streams to a server (`tests.warm.server`), which forks a process for it; signals and the exit code are passed on. In
this process ``sys.executable`` is the same program, so what a program starts (torchrun its ranks, an experiment its
cells) starts as fast.
"""

from __future__ import annotations

import atexit
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "torch.distributed.run", "torch.utils.tensorboard", "cove_dist.training.program",
    *(f"cove_dist.commands.{path.stem}" for path in sorted((ROOT / "cove_dist" / "commands").glob("[a-z]*.py"))),
)  # fmt: skip


@cache
def executable() -> str:
    """Start the server of this process, once; it ends with this process.

    Returns:
        The path of a program that takes the arguments of ``python``: a script, ``-m module`` or ``-c code``.
    """
    holder = tempfile.TemporaryDirectory(prefix="warm-")
    folder = Path(holder.name)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen(64)  # clients wait here until everything is imported
        with (folder / "log").open("w") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "tests.warm.server", str(listener.fileno()), *MODULES],
                stdin=subprocess.PIPE,  # whose end is the end of this process
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                pass_fds=(listener.fileno(),),
                start_new_session=True,
            )
    atexit.register(_end, server, holder)
    python = folder / "python"
    client = [sys.executable, "-IS", str(Path(__file__).with_name("client.py")), str(folder), str(python)]
    python.write_text(f'#!/bin/sh\nexec {shlex.join(client)} "$@"\n')
    python.chmod(0o755)
    return str(python)


def _end(server: subprocess.Popen[bytes], folder: tempfile.TemporaryDirectory[str]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    server.wait()
    folder.cleanup()
