"""A subcommand of ``cove`` as a subprocess: in its own process group, with its output in a file, stopped on request."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import cove_dist
from cove_dist.experiments.common import ExperimentConfig
from cove_dist.experiments.fork_server import executable

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.25
_GRACE_SECONDS = 20
_TAIL_LINES = 15
# As the programs print an error; that another rank is gone is never the cause.
_ERROR = re.compile(r"^error(?: \(rank \d+\))?: (?!lost another rank)(.+)$", re.MULTILINE)


class Interrupted(Exception):
    """The whole experiment is being stopped."""


@contextmanager
def exclusive(path: Path, stop: Event) -> Iterator[int]:
    """Hold a lock file, after waiting for its holder; yield its descriptor.

    A child that inherits the descriptor holds the lock too: if this process is killed and started again, it waits for
    the child that it left behind rather than train the same run at the same time.

    Raises:
        Interrupted: While waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        waiting = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not waiting:
                    logger.info("waiting for another process that works on %s", path)
                waiting = True
                if stop.wait(POLL_SECONDS):
                    raise Interrupted from None
        yield file.fileno()


def run_program(
    name: str,
    arguments: Sequence[str],
    log: Path,
    experiment: ExperimentConfig,
    *,
    lock: int,
    stop: Event,
    enough: Callable[[], bool] = lambda: False,
) -> int:
    """Run ``cove name arguments``, under torchrun where the experiment has several processes; returns its exit code.

    Args:
        name: Name of the subcommand.
        arguments: Arguments of the program.
        log: File to which its output is added.
        experiment: Numbers of processes and threads.
        lock: A descriptor that the program inherits.
        stop: Ends it; then Interrupted is raised.
        enough: Called every quarter of a second; true ends the program, with the exit code of a killed program.
    """
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc_per_node={experiment.processes}", "-m"]
    command = [executable(), "-m", *(torchrun if experiment.processes > 1 else []), "cove_dist", name, *arguments]
    paths = [str(Path(cove_dist.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    threads = {name: str(experiment.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    with log.open("a") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | threads | {"PYTHONPATH": os.pathsep.join(paths)},
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C reaches only this process, which then stops the others in order
        )
        try:
            while process.poll() is None and not enough():
                if stop.wait(POLL_SECONDS):
                    raise Interrupted
        finally:
            end(process)
    return process.returncode


def end(process: subprocess.Popen[bytes], grace: float = _GRACE_SECONDS) -> None:
    """Stop a process with its group: by SIGTERM, which torchrun passes on to its ranks, and SIGKILL after `grace` s."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            os.killpg(process.pid, number)
            _wait(process, grace)


def _wait(process: subprocess.Popen[bytes], grace: float) -> None:
    until = time.monotonic() + grace
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)


def tail(log: Path) -> str:
    """Return the last lines of a log."""
    lines = log.read_text(errors="replace").splitlines() if log.is_file() else []
    return "\n".join(line for line in lines[-_TAIL_LINES:] if line.strip())


def reason(log: Path, start: int = 0) -> str:
    """Return why a program ended, in one line: its last error message, or else the last line that it printed.

    Args:
        log: Log of one or several programs.
        start: Bytes of the log before the program began.
    """
    text = log.read_bytes()[start:].decode(errors="replace") if log.is_file() else ""
    messages = _ERROR.findall(text) or [line for line in text.splitlines() if line.strip()]
    return messages[-1].strip() if messages else "it printed nothing"


def size(log: Path) -> int:
    """Return the bytes of a log, 0 where there is none yet."""
    return log.stat().st_size if log.is_file() else 0
