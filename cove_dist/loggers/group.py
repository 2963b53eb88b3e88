"""The loggers of a run together: built from ``trainer.loggers``, and kept from ending a run that trains well."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from cove_dist.config import TrainerConfig
from cove_dist.config.checks import Component
from cove_dist.errors import ConfigError, LoggerError
from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.loggers.base import LoggedRun, Logger
from data_pipeline.full_disk import is_full

logger = logging.getLogger(__name__)


def resolve_loggers(sections: Mapping[str, dict[str, Any] | None]) -> dict[str, Component[Logger]]:
    """Import the classes of loggers and check their arguments; None stands for no logger.

    Args:
        sections: ``trainer.loggers``: ``_target_`` and arguments by name.

    Raises:
        ConfigError: A class is not a logger, an argument is wrong, or a package is not installed.
    """
    found = {}
    for name, section in sections.items():
        if section is None:
            continue
        key = f"trainer.loggers.{name}"
        found[name] = Component.resolve(Logger, section, key, "logger")
        needed = found[name].kind.requires
        if needed is not None and find_spec(needed[0]) is None:
            raise ConfigError(
                f"{key}._target_ = {section['_target_']}: needs {needed[0]}, which is not installed. Run pip install"
                f" 'cove-dist[{needed[1]}]', or remove the logger: trainer.loggers.{name}=null"
            )
    return found


def start_loggers(settings: TrainerConfig, run: LoggedRun, policy: FullDiskPolicy) -> Loggers:
    """Build and start the loggers of a run.

    Raises:
        ConfigError: As in `resolve_loggers`.
        LoggerError, DiskFullError: A logger failed, and its policy is to stop.
    """
    built = {name: component.build() for name, component in resolve_loggers(settings.loggers).items()}
    return Loggers(built, run, settings.on_logger_error, policy)


class Loggers:
    """Loggers whose errors are warned of once, or stop the run.

    A logger that cannot start is not called again, and neither is one whose disk is full.

    Args:
        loggers: Loggers by name, not started.
        run: What they log.
        on_error: Policy for a logger that raises.
        policy: Policy for a full disk.

    Raises:
        LoggerError, DiskFullError: A logger failed, and its policy is to stop.
    """

    def __init__(
        self,
        loggers: Mapping[str, Logger],
        run: LoggedRun,
        on_error: Literal["warn", "stop"],
        policy: FullDiskPolicy,
    ) -> None:
        self._folder, self._on_error, self._policy = run.folder, on_error, policy
        self._warned: set[str] = set()
        self._active: dict[str, Logger] = {}
        for name, each in loggers.items():
            if self._call(name, each, lambda: each.start(run)):  # noqa: B023 (called at once)
                self._active[name] = each

    def log(self, kind: str, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Pass metrics on to every logger; see `Logger.log`."""
        for name, each in list(self._active.items()):
            self._call(name, each, lambda: each.log(kind, step, epoch, metrics))  # noqa: B023 (called at once)

    def close(self, *, failed: bool) -> None:
        """Close every logger."""
        for name, each in list(self._active.items()):
            self._call(name, each, lambda: each.close(failed=failed))  # noqa: B023 (called at once)
        self._active.clear()

    def _call(self, name: str, each: Logger, action: Callable[[], None]) -> bool:
        """Call a logger; return whether it succeeded. Without space it is removed, if the policy is to go on."""
        try:
            action()
        except Exception as error:
            path: Path = self._folder / name
            if is_full(error, path):
                self._policy.handle(path, f"no more metrics for the logger {name}; log.jsonl has them", error)
                self._active.pop(name, None)
            else:
                self._report(name, each, error)
            return False
        return True

    def _report(self, name: str, each: Logger, error: Exception) -> None:
        what = (
            f"trainer.loggers.{name} ({type(each).__name__}) failed: {type(error).__name__}: {str(error).rstrip('.')}"
        )
        if self._on_error == "stop":
            raise LoggerError(f"{what}. Train without it by trainer.on_logger_error=warn") from error
        if name not in self._warned:
            logger.warning("%s. Training goes on; log.jsonl has all metrics, and further errors are not shown", what)
        self._warned.add(name)
