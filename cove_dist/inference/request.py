"""The settings of every command that asks something of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cove_dist.config import RunConfig, settings
from cove_dist.inference.session import Session
from cove_dist.tasks.saved_data import load_run_with_data
from cove_dist.types import Text


@settings
class DataFolder:
    """The folder with the run's data, if they were moved."""

    path: Text | None


@settings
class RunRequest:
    run: Text
    checkpoint: Literal["best", "newest"]
    device: Literal["auto", "cpu", "cuda"]
    data: DataFolder

    def load(self) -> tuple[RunConfig, Path]:
        """Read the run's configuration, in which ``data.path`` is the absolute path of its data; and its folder.

        Raises:
            ConfigError, DataError: As `load_run_with_data`.
        """
        return load_run_with_data(self.run, self.data.path)

    def session(self) -> Session:
        """Open the run in this process.

        Raises:
            ConfigError, CheckpointError, DataError: As `Session`.
        """
        return Session(self.run, self.checkpoint, self.device, self.data.path)
