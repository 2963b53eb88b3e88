"""Faults done to a training under torchrun, as they happen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from cove_dist.faults.run_lock import LOCK_FILE
from cove_dist.runs import LOG_FILE, read_records
from tests.configurations import small_run
from tests.end_to_end.programs import ROOT

ENDLESS = ("trainer.epochs=1000000", "trainer.early_stopping.patience=null", "trainer.workers=2")


class Job(NamedTuple):
    """A training on two ranks that would run for ever."""

    agent: subprocess.Popen[bytes]
    ranks: list[int]
    folder: Path
    printed: Path

    def newest_step(self) -> int:
        return max((int(path.name[5:]) for path in (self.folder / "checkpoints").glob("step_????????")), default=0)


def children(parent: int) -> list[int]:
    return [int(number) for number in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what}: not within {seconds} s"
        time.sleep(0.1)


@pytest.fixture
def job(prepared: Path, tmp_path: Path) -> Iterator[Job]:
    overrides = small_run(prepared, tmp_path / "run", *ENDLESS)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    printed = tmp_path / "printed"
    with printed.open("w") as file:
        agent = subprocess.Popen(
            [*torchrun, str(ROOT / "launch" / "train.py"), *overrides],
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
    wait_until(lambda: len(read_records(tmp_path / "run" / LOG_FILE)) > 3, 300, "training")
    ranks = children(agent.pid)
    assert len(ranks) == 2
    yield Job(agent, ranks, tmp_path / "run", printed)
    for process in (agent.pid, *ranks):
        if alive(process):
            os.kill(process, signal.SIGKILL)
    agent.wait()


def test_ctrl_c_saves_says_one_line_and_leaves_no_process(job: Job) -> None:
    """The terminal sends SIGINT to torchrun and to both ranks, and torchrun passes it on."""
    os.killpg(job.agent.pid, signal.SIGINT)
    job.agent.wait(timeout=60)
    output = job.printed.read_text()
    lines = [line for line in output.splitlines() if line.startswith("SIGINT")]
    assert len(lines) == 1, output
    step = job.newest_step()
    checkpoint = job.folder / "checkpoints" / f"step_{step:08d}"
    assert (
        lines[0] == f"SIGINT: stopped at step {step}; saved {checkpoint}. Continue with trainer.checkpoint.resume=auto"
    )
    assert read_records(job.folder / LOG_FILE)[-1]["step"] == step
    assert job.agent.returncode == 1, "torchrun's own code after a signal; the ranks' is 130"
    assert not any(alive(process) for process in job.ranks)
    assert not (job.folder / LOCK_FILE).exists()


def test_ranks_save_and_stop_when_torchrun_is_killed(job: Job) -> None:
    job.agent.kill()
    wait_until(lambda: not any(alive(process) for process in job.ranks), 15, "ranks are gone")
    output = job.printed.read_text()
    assert "torchrun is gone; stopping" in output
    step = job.newest_step()
    assert f"SIGTERM: stopped at step {step}; saved " in output
    assert read_records(job.folder / LOG_FILE)[-1]["step"] == step, "nothing is lost"
