"""Logging of a run: progress bar, JSON lines, and the configured loggers (rank 0 only)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from cove_dist.config import RunConfig
from cove_dist.config.overrides import flat
from cove_dist.console import console
from cove_dist.distributed import DistributedContext
from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.loggers.base import LoggedRun
from cove_dist.loggers.group import Loggers, start_loggers
from cove_dist.runs import LOG_FILE
from cove_dist.training.record_log import RecordLog, drop_records_after

logger = logging.getLogger(__name__)


class Reporter:
    """Shows and records metrics by step.

    Args:
        folder: Run folder; None: write nothing to disk (ranks other than 0, debug mode).
        visible: Whether this rank shows progress.
        first_step: Steps already done; later records, left by a killed run, are dropped.
        total_steps: Steps of the whole run, for the bar.
        epochs: Epochs of the whole run.
        policy: Policy for a full disk.
        loggers: Further loggers, started.
    """

    def __init__(
        self,
        folder: Path | None,
        visible: bool,
        first_step: int,
        total_steps: int,
        epochs: int,
        policy: FullDiskPolicy | None = None,
        loggers: Loggers | None = None,
    ) -> None:
        self._epochs = epochs
        self._log: RecordLog | None = None
        if folder is not None:
            drop_records_after(folder / LOG_FILE, first_step)
            self._log = RecordLog(folder / LOG_FILE, policy or FullDiskPolicy())
        self._loggers = loggers
        self._visible = visible
        self._progress: StepProgress | None = None
        if visible and console.is_terminal:
            self._progress = StepProgress(first_step, total_steps)
            self._progress.start()

    def advance(self, step: int) -> None:
        """Advance the progress bar."""
        if self._progress is not None:
            self._progress.advance_to(step)

    def record(
        self, kind: str, step: int, epoch: int, metrics: Mapping[str, float], shown: Mapping[str, float] | None = None
    ) -> None:
        """Record metrics.

        Args:
            kind: ``train``, ``validation`` or ``codebooks``.
            step: Optimizer steps done.
            epoch: Epochs completed.
            metrics: Metrics by name.
            shown: Further values for the progress line, such as the best validation metric.
        """
        if self._log is not None:
            self._log.add({"kind": kind, "step": step, "epoch": epoch, **metrics})
        if self._loggers is not None:
            self._loggers.log(kind, step, epoch, metrics)
        if not self._visible:
            return
        current = min(epoch + 1, self._epochs) if kind == "train" else epoch
        values = {**without_repeats(metrics), **(shown or {})}
        text = "  ".join(f"{name}={_short(value)}" for name, value in values.items())
        if self._progress is not None and kind == "train":
            self._progress.show(f"epoch {current}/{self._epochs}", text)
        else:
            logger.info("epoch %d/%d, step %d, %s: %s", current, self._epochs, step, kind, text)

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def close(self, *, failed: bool = False) -> None:
        """Close the bar, the log and the loggers; ``failed``: training ended with an error."""
        if self._progress is not None:
            self._progress.stop()
        if self._log is not None:
            self._log.close()
        if self._loggers is not None:
            self._loggers.close(failed=failed)


def start_reporter(
    config: RunConfig, folder: Path | None, context: DistributedContext, step: int, steps: int, policy: FullDiskPolicy
) -> Reporter:
    """Start the reporter of this rank, and on rank 0 the loggers.

    Args:
        config, context: Configuration and distributed context of the run.
        folder: Run folder; None: write nothing.
        step, steps: Steps already done, and of the whole run.
        policy: Policy for a full disk.

    Raises:
        LoggerError, DiskFullError: A logger failed, and its policy is to stop.
    """
    settings, loggers = config.trainer, None
    shown = folder if context.is_main else None
    if shown is not None:
        loggers = start_loggers(settings, LoggedRun(shown, step, flat(config.plain())), policy)
    return Reporter(shown, context.is_main, step, steps, settings.epochs, policy, loggers)


class StepProgress(Progress):
    """A bar over the steps of a run with the latest metrics below. Lines wrap between metrics, never within one."""

    def __init__(self, first_step: int, total_steps: int) -> None:
        self._metrics = ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console)
        self._bar = self.add_task("training", total=total_steps, completed=first_step)

    def advance_to(self, step: int) -> None:
        self.update(self._bar, completed=step)

    def show(self, description: str, metrics: str) -> None:
        self._metrics = metrics
        self.update(self._bar, description=description)

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self._metrics)


def without_repeats(metrics: Mapping[str, float]) -> dict[str, float]:
    """Leave out metrics that another one repeats under a longer name: those of the first of several labels.

    Example:
        >>> without_repeats({"auc": 0.7, "loss": 0.1, "auc/click": 0.7, "auc/like": 0.6})
        {'loss': 0.1, 'auc/click': 0.7, 'auc/like': 0.6}
    """
    # of several labels the first counts; repr, because nan is not equal to itself
    longer = {name.rpartition("/")[0]: repr(value) for name, value in reversed([*metrics.items()])}
    return {name: value for name, value in metrics.items() if longer.get(name) != repr(value)}


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
