"""SIGTERM and SIGINT on two real ranks."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from cove_dist.faults.signals import Interrupted
from cove_dist.runs import LOG_FILE, SUMMARY_FILE, read_records
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from tests.configurations import COVE, ROW_WISE, small_run
from tests.distributed.ranks import run_ranks


def train_and_signal(overrides: list[str], rank: int, number: int, step: int) -> tuple[int, str]:
    """Train; one rank receives a signal in a step. What the program ends with: exit code and message."""
    losses = Trainer.steps

    def signalled(self: Trainer, batches: Any):
        for output in losses(self, batches):
            if (self.context.rank, self.progress.step) == (rank, step):
                os.kill(os.getpid(), number)
            yield output

    Trainer.steps = signalled
    try:
        train(overrides)
    except Interrupted as stop:
        return stop.exit_code, str(stop)
    return -1, "trained"


def records(folder: Path) -> list[dict[str, Any]]:
    """Of the log, without what depends on time."""
    found = read_records(folder / LOG_FILE)
    return [{k: v for k, v in r.items() if not k.endswith(("_mb", "_per_second"))} for r in found]


def test_a_signal_to_one_rank_stops_all_at_the_same_step_and_loses_nothing(prepared: Path, tmp_path: Path) -> None:
    """Epochs have 10 steps: first a stop between the last step of an epoch and its validation, then one within one."""
    given = (*COVE, *ROW_WISE, "trainer.log_every=4")
    run_ranks(2, train, small_run(prepared, tmp_path / "whole", *given))
    stopped = small_run(prepared, tmp_path / "run", *given)
    resume = [*stopped, "trainer.checkpoint.resume=auto"]
    for overrides, rank, number, step, end, code in (
        (stopped, 0, signal.SIGINT, 8, 10, 130),
        (resume, 1, signal.SIGTERM, 13, 16, 0),
    ):
        checkpoint = tmp_path / "run" / "checkpoints" / f"step_{end:08d}"
        for exit_code, message in run_ranks(2, train_and_signal, overrides, rank, number, step):
            assert exit_code == code
            assert message.startswith(f"{number.name}: stopped at step {end}; saved {checkpoint}. Continue with ")
        assert not (tmp_path / "run" / SUMMARY_FILE).exists()
    run_ranks(2, train, resume)
    assert records(tmp_path / "run") == records(tmp_path / "whole")
    assert (tmp_path / "run" / SUMMARY_FILE).is_file()
