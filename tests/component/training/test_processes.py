"""Training that is started from Python on several processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import cove_dist as cove
from cove_dist.errors import TrainingError


def test_failed_processes_are_an_error_of_training(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "false")  # the command that fails
    with pytest.raises(TrainingError, match="training on 2 processes failed; its messages are above"):
        cove.train(prepared, output=tmp_path / "run", processes=2)
