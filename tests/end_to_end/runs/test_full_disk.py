"""A disk that really is full."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.checkpoints.manifest import verify
from cove_dist.errors import DiskFullError
from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.loggers.base import LoggedRun
from cove_dist.loggers.group import Loggers
from cove_dist.loggers.tensorboard import TensorBoard
from cove_dist.runs import LOG_FILE, SUMMARY_FILE, read_records
from cove_dist.training.loop import TrainingLoop
from cove_dist.training.program import train
from cove_dist.training.record_log import RecordLog
from tests.configurations import small_run

FILLER = "filler"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.getuid():
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> None:
    with (folder / FILLER).open("ab", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC


def fill_between(monkeypatch: pytest.MonkeyPatch, disk: Path, first: int, last: int) -> dict[int, list[str]]:
    """Fill the disk after a step and empty it after another; return the checkpoints of every step, to be filled."""
    seen: dict[int, list[str]] = {}

    after_step = TrainingLoop.after_step

    def filling(self: TrainingLoop, output: Any, batches: Any) -> None:
        if self.progress.step == first:
            self.writer.wait()
            fill(disk)
        if self.progress.step == last:
            (disk / FILLER).unlink()
        after_step(self, output, batches)
        wait([self.writer._pending] if self.writer._pending else [])
        seen[self.progress.step] = [path.name for path in self.writer.files.complete()]

    monkeypatch.setattr(TrainingLoop, "after_step", filling)
    return seen


def test_training_goes_on_with_a_warning_and_keeps_the_checkpoints_before(
    disk: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    seen = fill_between(monkeypatch, disk, 5, 13)
    settings = ("trainer.checkpoint.every_steps=2", "trainer.on_disk_full=warn")
    train(small_run(prepared, disk / "run", *settings))
    checkpoints = disk / "run" / "checkpoints"
    assert f"{checkpoints}: no space left on device" in caplog.text
    assert "training continues without this checkpoint" in caplog.text
    assert seen[12] == ["step_00000002", "step_00000004"]
    for path in CheckpointFolder(checkpoints).steps():
        verify(path)
    assert CheckpointFolder(checkpoints).newest().name == "step_00000020"
    trained = [record["step"] for record in read_records(disk / "run" / LOG_FILE) if record["kind"] == "train"]
    assert trained == list(range(1, 21))
    assert (disk / "run" / SUMMARY_FILE).is_file()


def test_training_stops_at_once_and_keeps_the_checkpoints_before(
    disk: Path, prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = fill_between(monkeypatch, disk, 5, 99)
    with pytest.raises(DiskFullError, match=r"run/checkpoints: no space left on device .*trainer\.on_disk_full=warn"):
        train(small_run(prepared, disk / "run", "trainer.checkpoint.every_steps=2"))
    assert max(seen) < 8, "found out before the next save"
    files = CheckpointFolder(disk / "run" / "checkpoints")
    assert sorted(path.name for path in files.folder.iterdir()) == ["step_00000002", "step_00000004"]
    for path in files.steps():
        verify(path)
    assert (disk / "run" / LOG_FILE).read_bytes().endswith(b"\n")


@pytest.mark.parametrize("choice", ["stop", "warn"])
def test_a_log_on_a_full_disk_has_whole_lines_only_and_later_all_of_them(
    choice: str, disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = RecordLog(disk / LOG_FILE, FullDiskPolicy(choice))
    records = [{"kind": "x" * 1000, "step": step} for step in range(20)]
    log.add(records[0])
    fill(disk)
    if choice == "stop":
        with pytest.raises(DiskFullError, match=r"log\.jsonl: no space left on device"):
            for record in records[1:]:
                log.add(record)
    else:
        for record in records[1:]:
            log.add(record)
    before = (disk / LOG_FILE).read_bytes()
    assert before.endswith(b"\n")
    assert 0 < len(before.splitlines()) < 20
    (disk / FILLER).unlink()
    log.close()
    if choice == "warn":
        assert read_records(disk / LOG_FILE) == records
        assert "records are kept in memory" in caplog.text


@pytest.mark.parametrize("choice", ["stop", "warn"])
def test_tensorboard_alone_on_a_full_disk(
    choice: Any, disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The rest of the run folder is on another disk."""
    (tmp_path / "tensorboard").symlink_to(disk)
    policy = FullDiskPolicy(choice)

    def log() -> None:
        loggers = Loggers({"tensorboard": TensorBoard()}, LoggedRun(tmp_path, 0, {}), "stop", policy)
        fill(disk)
        for step in range(1, 300):
            loggers.log("train", step, 0, {"loss": 1.0})
        loggers.close(failed=False)

    if choice == "stop":
        with pytest.raises(DiskFullError, match="tensorboard: no space left on device"):
            log()
    else:
        log()
        assert caplog.text.count("no more metrics for the logger tensorboard; log.jsonl has them") == 1
