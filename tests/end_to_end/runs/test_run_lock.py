"""One training per run folder, and folders that cannot be written to."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch.distributed as dist

from cove_dist.errors import ConfigError
from cove_dist.faults.outputs import check_writable
from cove_dist.faults.run_lock import LOCK_FILE, locked
from cove_dist.runs import CHECKPOINTS
from cove_dist.training import program
from cove_dist.training.program import train
from tests.checkpoints import write_checkpoint
from tests.configurations import small_run

HOLD = """
import sys
from pathlib import Path
from cove_dist.faults.run_lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that trains in the folder."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_training_is_refused_with_host_and_process_and_a_dead_one_is_no_hindrance(
    holder: subprocess.Popen[str], tmp_path: Path, prepared: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    owner = rf"process {holder.pid} on {socket.gethostname()} \(since 20.*\) trains there at this moment"
    with pytest.raises(ConfigError, match=rf"output = {run}: {owner}"):
        train(small_run(prepared, run, "trainer.max_steps=1"))
    assert os.listdir(run) == [LOCK_FILE]
    assert not dist.is_initialized()  # a notebook may train again
    holder.kill()
    holder.wait()
    with caplog.at_level(logging.INFO):
        train(small_run(prepared, run, "trainer.max_steps=1"))
    assert f"process {holder.pid} on" in caplog.text
    assert "ended without releasing its lock; taking over" in caplog.text
    assert not (run / LOCK_FILE).exists()


def test_the_lock_of_another_host_is_believed_until_it_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = {"host": "node7", "pid": 12, "since": "2026-01-01T00:00:00+00:00", "job": "job-5"}
    (tmp_path / LOCK_FILE).write_text(json.dumps(owner))
    with (
        pytest.raises(ConfigError, match=rf"process 12 on node7 \(since 2026.*was lost.*remove {tmp_path}/run\.lock"),
        locked(tmp_path),
    ):
        pass
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job-5")  # another attempt of the same job, now on this host
    with locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_made_for_a_refused_run_does_not_stay(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), locked(tmp_path / "run"):
        raise ConfigError("refused")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("file/run", "file is a file"),
        ("x" * 300, "File name too long"),
        ("é" * 200, "File name too long"),
        ("/".join(["x" * 200] * 21), "File name too long"),
    ],
)
def test_an_output_that_cannot_be_made_is_refused_before_any_work(
    name: str, reason: str, tmp_path: Path, prepared: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=rf"(?s)output = .{{1,220}}: .*{reason}; give a folder"):
        check_writable(tmp_path / name)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("output", ["''", "' '"])
def test_an_empty_output_is_refused(output: str, prepared: Path) -> None:
    with pytest.raises(ConfigError, match=r"^output = "):
        train(small_run(prepared, output))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system that is mounted read-only; for other users than root one without permission."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    if os.getuid():
        folder.chmod(0o500)
        yield folder
        folder.chmod(0o700)
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_an_output_without_permission_or_on_a_read_only_file_system_is_refused(read_only: Path, prepared: Path) -> None:
    reason = "not writable" if os.getuid() else "on a read-only file system"
    with pytest.raises(ConfigError, match=rf"output = {read_only}/a/run: {read_only} is {reason}; give a folder"):
        train(small_run(prepared, read_only / "a" / "run"))


def test_a_run_that_was_trained_while_this_one_started_is_not_overwritten(
    tmp_path: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one had the lock after the first check, and has given it back."""

    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        write_checkpoint(folder / CHECKPOINTS, 10, {})
        with locked(folder):
            yield

    monkeypatch.setattr(program, "locked", late)
    with pytest.raises(ConfigError, match="already holds a run"):
        train(small_run(prepared, tmp_path / "run", "trainer.max_steps=1"))
    assert os.listdir(tmp_path / "run") == [CHECKPOINTS]
