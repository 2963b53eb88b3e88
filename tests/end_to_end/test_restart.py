"""Ranks that torchrun starts again after one of them was killed."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from cove_dist.errors import ConfigError
from cove_dist.faults.attempts import mark_begun
from cove_dist.training.program import resumes_run, train
from tests.checkpoints import write_checkpoint
from tests.configurations import COVE, ROW_WISE, small_run
from tests.distributed.ranks import run_ranks
from tests.end_to_end.programs import ROOT
from tests.fork_server import executable


def torchrun(kill_at: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [executable(), "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    return subprocess.run(
        [*command, str(ROOT / "tests" / "end_to_end" / "killed_train.py"), *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "KILL_AT": str(kill_at)},
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip


def metrics(run: Path) -> list[tuple[int, float | None, float | None]]:
    """Step, loss and validation AUC of every record."""
    records = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [(record["step"], record.get("loss"), record.get("auc")) for record in records]


def test_a_run_whose_rank_is_killed_goes_on_by_itself_and_loses_nothing(prepared: Path, tmp_path: Path) -> None:
    """Without resume=auto: what torchrun starts again is the run that it began."""
    settings = (*COVE, *ROW_WISE, "trainer.checkpoint.every_steps=3", "trainer.epochs=1")
    done = torchrun(8, *small_run(prepared, tmp_path / "run", *settings))
    assert done.returncode == 0, done.stderr
    assert "Resumed from" in done.stderr + done.stdout
    run_ranks(2, train, small_run(prepared, tmp_path / "whole", *settings))
    assert metrics(tmp_path / "run") == metrics(tmp_path / "whole")


def test_only_the_run_that_this_torchrun_began_goes_on_without_being_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", str(store.port))
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    for name in ("found", "begun"):
        write_checkpoint(tmp_path / name / "checkpoints", 3)
    mark_begun(tmp_path / "begun")
    assert resumes_run(tmp_path / "begun", "no")
    with pytest.raises(ConfigError, match="found: already holds a run"):
        resumes_run(tmp_path / "found", "no")
    assert resumes_run(tmp_path / "found", "auto")
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    with pytest.raises(ConfigError, match="begun: already holds a run"):
        resumes_run(tmp_path / "begun", "no")
