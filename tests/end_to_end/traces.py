"""What runs leave behind, to be compared."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from cove_dist.errors import UserError
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks import loaders
from cove_dist.training import program
from cove_dist.training.trainer import Trainer
from data_pipeline.errors import DataError
from data_pipeline.streaming.settings import StreamSettings
from data_pipeline.streaming.stream import ParquetStream


class Traces:
    """What runs leave behind, by their overrides.

    Args:
        folder: of the runs; each is removed when it is read.
        monkeypatch: to look at what a run builds.
        caplog: with its warnings.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        self._folder, self._caplog = folder, caplog
        self._built: list[Any] = []
        self._known: dict[tuple[str, ...], Any] = {}
        built = self._built

        class RecordedStream(ParquetStream):
            def __init__(self, path: Any, schema: Any, split: str, settings: StreamSettings) -> None:
                built.append((split, settings.batch_size, settings.workers))
                super().__init__(path, schema, split, settings)

        class RecordedTrainer(Trainer):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                quantizers = self.train_state.model.module.objective.quantizers
                built.append([quantizer.search for quantizer in quantizers.values()])
                built.append(str(self.train_state.model.plan))

        monkeypatch.setattr(loaders, "ParquetStream", RecordedStream)
        monkeypatch.setattr(program, "Trainer", RecordedTrainer)

    def of(self, *overrides: str) -> Any:
        """Records, files, warnings and what was built; or the message of the refusal, in a tuple of its own."""
        if overrides not in self._known:
            self._known[overrides] = self.again(*overrides)
        return self._known[overrides]

    def again(self, *overrides: str) -> Any:
        """The same, of another run."""
        self._built.clear()
        self._caplog.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir()
        try:
            program.train(overrides)
        except (UserError, DataError) as error:
            return ("refused", str(error))
        finally:
            torch.use_deterministic_algorithms(False)
            torch.autograd.set_detect_anomaly(False)
        files = sorted(path for path in self._folder.rglob("*") if "tfevents" not in path.name)
        logs = [read_records(path) for path in files if path.name == LOG_FILE]
        records = [[{k: v for k, v in r.items() if not _is_of_time(k)} for r in log] for log in logs]
        metas = [json.loads(path.read_text()) for path in files if path.name == "meta.json"]
        progress = [(meta["step"], meta["progress"]) for meta in metas]
        warnings = [r.getMessage() for r in self._caplog.records if r.levelno >= logging.WARNING and "cove" in r.name]
        names = [str(path.relative_to(self._folder)) for path in files]
        return (repr(records), names, repr(progress), warnings, list(self._built))


def _is_of_time(key: str) -> bool:
    return any(word in key for word in ("time", "second", "_mb"))
