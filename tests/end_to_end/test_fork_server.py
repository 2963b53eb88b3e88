"""The Python that starts the programs of these tests behaves as an ordinary one."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cove_dist.experiments import fork_server
from tests.fork_server import executable

PROGRAM = """
import os, subprocess, sys
print(sys.orig_argv)
print(sys.argv[1:], os.environ["NAME"], os.getcwd(), sys.stdin.read(), "torchrec" in sys.modules)
print("to stderr", file=sys.stderr)
sys.exit(subprocess.run([sys.executable, "-c", "import sys; sys.exit('torchrec' in sys.modules)"]).returncode + 6)
"""
ENDINGS = ("pass", "import sys; sys.exit('why')", "1 / 0", "import os; os.kill(os.getpid(), 9)", "raise SystemExit(5)")
WAITS = "import time; print('waits', flush=True); time.sleep(60)"


@pytest.mark.parametrize("how", ["script", "-c", "-m"])
def test_arguments_environment_folder_streams_and_exit_code_are_passed_on(how: str, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    given = {"script": [str(tmp_path / "program.py")], "-c": ["-c", PROGRAM], "-m": ["-m", "program"]}[how]
    done = subprocess.run(
        [executable(), *given, "a b"], cwd=tmp_path, env={"NAME": "é"}, input="in", capture_output=True, text=True
    )
    command = [sys.executable, *given, "a b"]
    assert (done.stdout, done.stderr) == (f"{command}\n['a b'] é {tmp_path} in True\n", "to stderr\n")
    assert done.returncode == 7, "and what it starts is warm, too"


@pytest.mark.parametrize("code", ENDINGS)
def test_ends_as_an_ordinary_python_does(code: str) -> None:
    ordinary, warm = (
        subprocess.run([python, "-c", code], capture_output=True, text=True)
        for python in (sys.executable, executable())
    )
    assert warm.returncode == ordinary.returncode
    assert warm.stderr.splitlines()[-1:] == ordinary.stderr.splitlines()[-1:]


def test_signals_are_passed_on_and_a_kill_kills(tmp_path: Path) -> None:
    handles = f"import signal; signal.signal(signal.SIGTERM, lambda *_: exit(3)); {WAITS}"
    for code, number, expected in ((handles, signal.SIGTERM, 3), (WAITS, signal.SIGTERM, -signal.SIGTERM)):
        process = subprocess.Popen([executable(), "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None and process.stdout.readline() == b"waits\n"
        process.send_signal(number)
        assert process.wait(timeout=20) == expected
    code = f"import os; print(os.getpid(), flush=True); {WAITS}"
    process = subprocess.Popen([executable(), "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    forked = Path("/proc") / process.stdout.readline().decode().strip()
    assert forked.exists()
    process.kill()
    until = time.monotonic() + 20
    while forked.exists() and time.monotonic() < until:
        time.sleep(0.01)
    assert not forked.exists()


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import no_such_module", "No module named 'no_such_module'"),
        (
            "from threading import Event, Thread; Thread(target=Event().wait, daemon=True).start()",
            "lose the threads",
        ),
    ],
)
def test_programs_are_ordinary_processes_where_the_server_does_not_start(
    module: str, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tmp_path.name.replace("-", "_")  # a server is started once for the same modules
    (tmp_path / f"{name}.py").write_text(module)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert fork_server.executable((name,)) == sys.executable
    assert reason in caplog.text


def test_programs_are_ordinary_processes_on_a_machine_with_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert fork_server.executable(("sys",)) == sys.executable
