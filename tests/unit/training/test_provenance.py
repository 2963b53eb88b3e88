"""What a run records of its origin."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

import cove_dist
from cove_dist.distributed import DistributedContext
from cove_dist.training.provenance import masked, record_start, repository

CONTEXT = DistributedContext(0, 2, 2, torch.device("cpu"))


def starts(folder: Path) -> list[dict]:
    return json.loads((folder / "provenance.json").read_text())["starts"]


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    return subprocess.check_output(["git", "-C", str(folder), *identity, *arguments], text=True).strip()


def test_a_resumed_start_is_appended_and_another_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "not to be written")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "cove_dist", "train", "seed=3", "+a.api_key=hidden"])
    for step, resumed in ((5, True), (0, False), (0, True), (40, True)):  # warm starts have a checkpoint of step 0
        record_start(tmp_path, step, "data/made", "f" * 64, CONTEXT, resumed=resumed)
    first, *others = starts(tmp_path)
    assert (first["step"], [other["step"] for other in others]) == (0, [0, 40])
    assert first["command"][2:] == ["cove_dist", "train", "seed=3", "+a.api_key=***"]
    assert first["data"] == {"path": str(Path.cwd() / "data/made"), "fingerprint": "f" * 64}
    assert (first["world_size"], first["cove_dist"]) == (2, cove_dist.__version__)
    assert first["packages"]["torch"] == version("torch")
    text = (tmp_path / "provenance.json").read_text()
    assert "not to be written" not in text
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("argument", "shown"),
    [
        ("loggers.w.api_key=abc", "loggers.w.api_key=***"),
        ("loggers.w={Token: abc, project: x}", "loggers.w={Token: ***, project: x}"),
        ("--password=abc", "--password=***"),
        ("trainer.batch_size=10", "trainer.batch_size=10"),
        ("model=deepfm", "model=deepfm"),
    ],
)
def test_values_of_secrets_are_masked(argument: str, shown: str) -> None:
    assert masked(argument) == shown


def test_the_commit_and_whether_tracked_files_differ_from_it(tmp_path: Path) -> None:
    assert repository(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert repository(tmp_path) is None  # no commit yet
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "untracked").write_text("")
    assert repository(tmp_path) == {"commit": commit, "dirty": False}
    (tmp_path / "a").write_text("2")
    assert repository(tmp_path) == {"commit": commit, "dirty": True}
    (tmp_path / "environment").mkdir()
    assert repository(tmp_path / "environment") is None
    assert repository(tmp_path / "absent") is None
