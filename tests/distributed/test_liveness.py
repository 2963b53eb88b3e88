"""Ranks that no longer answer, and ranks that never come."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from cove_dist.distributed import barrier, close_group, open_host_group, process_group
from cove_dist.errors import LostRankError
from cove_dist.liveness import Heartbeat, Store
from cove_dist.torch_compat import timeout_of
from cove_dist.training.loop import TrainingLoop
from cove_dist.training.program import train
from tests.configurations import small_run
from tests.distributed.ranks import run_ranks


class Frozen:
    """A store whose user stands still from a moment on, as a process does after SIGSTOP."""

    def __init__(self, store: Store, moment: threading.Event) -> None:
        self._store, self._moment = store, moment
        self.get, self.check = store.get, store.check

    def set(self, key: str, value: str) -> None:
        while self._moment.is_set():
            time.sleep(0.05)
        self._store.set(key, value)


@pytest.mark.parametrize(("seconds", "of_checkpoints"), [(60, 1800), (7200, 7200)])
def test_the_timeout_holds_for_the_groups_beside_training_as_well(seconds: int, of_checkpoints: int) -> None:
    with process_group("cpu", timedelta(seconds=seconds)):
        groups = open_host_group(), open_host_group(timedelta(minutes=30))
        assert [timeout_of(group).total_seconds() for group in groups] == [seconds, of_checkpoints]
        for group in groups:
            close_group(group)


class Members:
    """Heartbeats of several ranks in one process; what a watcher says ends up in ``said``."""

    def __init__(self, size: int, seconds: float) -> None:
        store = dist.HashStore()
        self.said: dict[int, str] = {}
        self.frozen = [threading.Event() for _ in range(size)]
        self.beats = [
            Heartbeat(
                Frozen(store, self.frozen[rank]), rank, size, timedelta(seconds=seconds), partial(self._say, rank)
            )
            for rank in range(size)
        ]

    def _say(self, rank: int, message: str) -> None:
        self.said[rank] = message

    def close(self) -> None:
        for moment, beat in zip(self.frozen, self.beats, strict=True):
            moment.clear()
            beat.close()


def test_the_rank_before_a_silent_one_names_it() -> None:
    members = Members(3, seconds=2.0)
    time.sleep(0.6)
    assert members.said == {}
    members.frozen[1].set()
    until = time.monotonic() + 30
    while not members.said and time.monotonic() < until:
        time.sleep(0.05)
    members.close()
    assert list(members.said) == [0]
    assert members.said[0].startswith("rank 1 has not answered for 2 s (trainer.timeout_seconds)")


def test_a_rank_that_is_done_is_not_missed() -> None:
    members = Members(2, seconds=1.0)
    time.sleep(0.5)
    members.beats[0].close()
    time.sleep(2.0)
    members.close()
    assert members.said == {}


def train_until_stopped(overrides: list[str], output: Path) -> None:
    """Train; rank 1 is stopped by SIGSTOP in its fourth step. Rank 0's errors go to a file."""
    after_step = TrainingLoop.after_step

    def stopping(self: TrainingLoop, step: Any, batches: Any) -> None:
        if self.trainer.context.rank == 1 and self.progress.step == 4:
            os.kill(os.getpid(), signal.SIGSTOP)
        after_step(self, step, batches)

    TrainingLoop.after_step = stopping
    if os.environ["RANK"] == "0":
        os.dup2(os.open(output, os.O_CREAT | os.O_WRONLY), 2)
    train(overrides)


def test_a_stopped_rank_ends_the_run_with_its_name(prepared: Path, tmp_path: Path) -> None:
    overrides = small_run(prepared, tmp_path / "run", "trainer.timeout_seconds=10")
    with pytest.raises(AssertionError, match=r"ranks \[0\] died with exit codes \[2\]"):
        run_ranks(2, train_until_stopped, overrides, tmp_path / "errors")
    text = (tmp_path / "errors").read_text()
    assert "error (rank 0): rank 1 has not answered for 10 s (trainer.timeout_seconds): it was stopped" in text
    assert "Traceback" not in text


def wait_for_everyone(late: int) -> str:
    """Come to a barrier, or sleep instead; what this rank raises."""
    try:
        with process_group("cpu", timedelta(seconds=3)) as context:
            if context.rank == late:
                time.sleep(9)
            barrier()
    except RuntimeError as error:
        return f"{type(error).__name__}: {error}"
    except LostRankError as error:
        return f"{type(error).__name__}: {error}"
    return "met"


def test_a_rank_that_runs_and_does_not_come_is_named() -> None:
    said = run_ranks(3, wait_for_everyone, 1)
    assert said[0].startswith("LostRankError: waited 3 s (trainer.timeout_seconds) for rank 1, which runs")
    assert said[2].startswith("LostRankError: ")  # without the name if rank 0, with the store, has ended before
