"""A rank whose torchrun is gone."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from cove_dist import liveness


def rank(folder: Path) -> None:
    """Watch the parent, in a process that SIGTERM does not end."""
    sys.stderr = (folder / "printed").open("w", buffering=1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with liveness.watched_parent():
        (folder / "watching").write_text(str(os.getpid()))
        time.sleep(60)
    os._exit(0)


def test_a_rank_that_cannot_stop_is_ended_after_the_time_that_torchrun_grants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert liveness._GRACE_SECONDS == 30, "the default of torchrun"
    monkeypatch.setattr(liveness, "_GRACE_SECONDS", 0.3)
    monkeypatch.setattr(liveness, "_PARENT_SECONDS", 0.02)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "job")
    if (agent := os.fork()) == 0:
        if os.fork() == 0:
            rank(tmp_path)
        while not (tmp_path / "watching").exists():
            time.sleep(0.01)
        time.sleep(0.05)
        os._exit(0)
    os.waitpid(agent, 0)
    until = time.monotonic() + 30
    while "not stopped" not in (printed := (tmp_path / "printed").read_text()):
        assert time.monotonic() < until, printed
        time.sleep(0.02)
    process = Path("/proc", (tmp_path / "watching").read_text(), "stat")
    while process.exists() and process.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < until, "still there"
        time.sleep(0.02)
    assert "torchrun is gone; stopping" in printed
