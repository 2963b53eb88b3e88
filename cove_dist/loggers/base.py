"""The interface of loggers: what a run reports its metrics to, besides ``log.jsonl``."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from cove_dist.runs import read_json
from data_pipeline.json_files import write_json

LEARNING_RATE = "learning_rate_"  # prefix of learning rates among the metrics
IDS_FILE = "logger_ids.json"


@dataclass(frozen=True)
class LoggedRun:
    """What a logger knows of its run.

    Attributes:
        folder: Run folder.
        first_step: Steps done before this start; above 0 the run is resumed, and later metrics are logged again.
        config: Settings by dotted key.
    """

    folder: Path
    first_step: int
    config: Mapping[str, Any]

    def identity(self, service: str) -> str | None:
        """Return the id under which a service knows the run, if it is resumed and was logged there before."""
        return read_json(self.folder / IDS_FILE).get(service) if self.first_step else None

    def remember(self, service: str, identity: str) -> None:
        """Store the id under which a service knows the run, for `identity` of a later start."""
        path = self.folder / IDS_FILE
        write_json(path, read_json(path) | {service: identity})


class Logger(ABC):
    """Logs the metrics of a run. Only rank 0 has loggers.

    The constructor takes settings as keyword arguments and does nothing else; `start` opens files and connections.

    Attributes:
        requires: Module that the logger imports when it starts, and the extra of this package that installs it.

    Example::

        class Printed(Logger):
            def start(self, run: LoggedRun) -> None:
                print(run.folder)

            def log(self, kind: str, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
                print(step, {tag(kind, name): value for name, value in metrics.items()})
    """

    requires: ClassVar[tuple[str, str] | None] = None

    @abstractmethod
    def start(self, run: LoggedRun) -> None:
        """Open what the logger writes to."""

    @abstractmethod
    def log(self, kind: str, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log metrics.

        Args:
            kind: ``train``, ``validation`` or ``codebooks``.
            step: Optimizer steps done.
            epoch: Epochs completed.
            metrics: Metrics by name, nan where undefined; `tag` groups the names.
        """

    def close(self, *, failed: bool) -> None:  # noqa: B027 (nothing to do by default)
        """Close what `start` opened.

        Args:
            failed: Whether training ended with an error.
        """


def tag(kind: str, name: str) -> str:
    """Return the name of a metric in loggers, grouped by kind.

    Examples: ``loss/task``, ``codes/item/level_1/perplexity``, ``speed/samples_per_second``, ``lr/tables``,
    ``memory/resident_mb``, ``validation/ndcg@10``.
    """
    if of_level := re.fullmatch(r"(perplexity|dead|revived)_(\w+)_(\d+)", name):
        measure, entity, level = of_level.groups()
        group = "codes" if kind == "train" else "codes_of_epoch"
        return f"{group}/{entity}/level_{level}/{measure}"
    if kind != "train":
        return f"{kind}/{name}"
    if name.startswith(LEARNING_RATE):
        return f"lr/{name.removeprefix(LEARNING_RATE)}"
    groups = {
        "samples_per_second": "speed",
        "resident_mb": "memory",
        "device_mb": "memory",
        "gradient_norm": "gradients",
    }
    return f"{groups.get(name, 'loss')}/{name}"
