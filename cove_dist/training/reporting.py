"""Logging of a run: progress bar, TensorBoard, JSON lines (rank 0 only)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from cove_dist.console import console
from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.runs import LOG_FILE
from cove_dist.training.record_log import RecordLog, drop_records_after

logger = logging.getLogger(__name__)

LEARNING_RATE = "learning_rate_"  # prefix of learning rates among the metrics


class Reporter:
    """Shows and records metrics by step.

    Args:
        folder: Run folder; None: write nothing to disk (ranks other than 0, debug mode).
        visible: Whether this rank shows progress.
        first_step: Steps already done; later records, left by a killed run, are dropped.
        total_steps: Steps of the whole run, for the bar.
        epochs: Epochs of the whole run.
        policy: Policy for a full disk.
    """

    def __init__(
        self,
        folder: Path | None,
        visible: bool,
        first_step: int,
        total_steps: int,
        epochs: int,
        policy: FullDiskPolicy | None = None,
    ) -> None:
        self._epochs = epochs
        self._policy = policy or FullDiskPolicy()
        self._log: RecordLog | None = None
        self._board: SummaryWriter | None = None
        if folder is not None:
            drop_records_after(folder / LOG_FILE, first_step)
            self._log = RecordLog(folder / LOG_FILE, self._policy)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
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
        self._draw(kind, step, metrics)
        if not self._visible:
            return
        current = min(epoch + 1, self._epochs) if kind == "train" else epoch
        text = "  ".join(f"{name}={_short(value)}" for name, value in {**metrics, **(shown or {})}.items())
        if self._progress is not None and kind == "train":
            self._progress.show(f"epoch {current}/{self._epochs}", text)
        else:
            logger.info("epoch %d/%d, step %d, %s: %s", current, self._epochs, step, kind, text)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._log is not None:
            self._log.close()
        if self._board is not None:
            with self._policy.guarding(Path(self._board.log_dir), "TensorBoard lacks the last metrics"):
                self._board.close()

    def _draw(self, kind: str, step: int, metrics: Mapping[str, float]) -> None:
        """Add metrics to TensorBoard, until its disk is full."""
        board, self._board = self._board, None
        if board is not None:
            with self._policy.guarding(Path(board.log_dir), "no more metrics for TensorBoard; log.jsonl has them"):
                for name, value in metrics.items():
                    board.add_scalar(board_tag(kind, name), value, step)
                self._board = board


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


def board_tag(kind: str, name: str) -> str:
    """Return the TensorBoard tag of a metric, grouped by kind.

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


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
