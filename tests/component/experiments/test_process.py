"""Locks, and jobs on threads."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from threading import Event

import pytest

from cove_dist.experiments.process import Interrupted, end, exclusive, reason, size, tail
from cove_dist.experiments.runner import in_parallel, stopping


def test_a_lock_is_held_by_a_child_that_inherits_it(tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", Event()) as lock:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=(lock,))
    stop = Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(Interrupted), exclusive(tmp_path / "lock", stop):
        pass
    child.kill()
    child.wait()
    with exclusive(tmp_path / "lock", Event()):
        pass


def is_running(pid: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_process_is_ended_with_its_group(tmp_path: Path) -> None:
    """The parent takes no notice of SIGTERM, nor does it pass it on."""
    code = (
        "import signal, subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '60'])\n"
        f"open('{tmp_path}/child', 'w').write(str(child.pid))\n"
        "child.wait()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    while not (tmp_path / "child").is_file() or not (tmp_path / "child").read_text():
        time.sleep(0.01)
    end(process)
    assert process.returncode == -signal.SIGTERM
    pid = int((tmp_path / "child").read_text())
    until = time.monotonic() + 10  # the signal is sent; on a busy machine the child dies a little later
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_running(pid)


def test_jobs_run_concurrently_and_the_first_error_ends_them() -> None:
    barrier, stop = threading.Barrier(2, timeout=10), Event()
    in_parallel([barrier.wait, barrier.wait], 2, stop, lambda: None)
    assert not stop.is_set()
    ended = []

    def patient() -> None:
        stop.wait(10)
        ended.append(True)

    def failing() -> None:
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        in_parallel([patient, failing, partial(ended.append, False)], 2, stop, lambda: None)
    assert True in ended


def test_sigterm_ends_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), stopping() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert stop.is_set()
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert tail(log) == ""
    log.write_text("".join(f"line {i}\n\n" for i in range(50)))
    assert tail(log).splitlines()[-1] == "line 49"
    assert len(tail(log).splitlines()) == 7


@pytest.mark.parametrize(
    ("printed", "words"),
    [
        ("error: data = x: no such folder\n", "data = x: no such folder"),
        (
            "error (rank 0): loss not finite\nerror (rank 1): lost another rank, which has stopped\nexit 2\n",
            "loss not finite",
        ),
        ("Traceback ...\nValueError: broken\n\n", "ValueError: broken"),
        ("", "it printed nothing"),
    ],
)
def test_the_reason_of_an_end_is_its_own_last_error(tmp_path: Path, printed: str, words: str) -> None:
    log = tmp_path / "cell.log"
    assert size(log) == 0
    log.write_text("error: of an earlier attempt\n")
    start = size(log)
    with log.open("a") as file:
        file.write(printed)
    assert reason(log, start) == words
