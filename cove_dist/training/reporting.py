"""What a run says while it runs: a progress bar, TensorBoard, and JSON lines. Only rank 0 speaks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text
from torch.utils.tensorboard import SummaryWriter

from cove_dist.console import console
from cove_dist.runs import LOG_FILE, read_records
from data_pipeline.files import replaced_file
from data_pipeline.json_files import to_json

logger = logging.getLogger(__name__)


class Reporter:
    """Shows and records figures by step.

    Args:
        folder: the run folder; `None` shows and records nothing on disk (ranks but 0, debug mode).
        visible: whether this rank shows progress.
        first_step: steps already done; records after it, left by a run that was killed, are dropped.
        total_steps: of the whole run, for the bar.
    """

    def __init__(self, folder: Path | None, visible: bool, first_step: int, total_steps: int) -> None:
        self._file = None
        self._board = None
        if folder is not None:
            drop_records_after(folder / LOG_FILE, first_step)
            self._file = (folder / LOG_FILE).open("a", buffering=1)
            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=first_step + 1)
        self._visible = visible
        self._progress: StepProgress | None = None
        if visible and console.is_terminal:
            self._progress = StepProgress(first_step, total_steps)
            self._progress.start()

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.advance_to(step)

    def record(self, kind: str, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        """Record figures of a kind: ``train`` or ``validation``."""
        if self._file is not None:
            self._file.write(to_json({"kind": kind, "step": step, "epoch": epoch, **figures}) + "\n")
        if self._board is not None:
            for name, value in figures.items():
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if not self._visible:
            return
        text = "  ".join(f"{name} {_short(value)}" for name, value in figures.items())
        if self._progress is not None and kind == "train":
            self._progress.show(epoch, text)
        else:
            logger.info("epoch %d, step %d, %s: %s", epoch, step, kind, text)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


class StepProgress(Progress):
    """A bar over the steps of a run, and under it the latest figures."""

    def __init__(self, first_step: int, total_steps: int) -> None:
        self._figures = ""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(*columns, console=console)
        self._bar = self.add_task("training", total=total_steps, completed=first_step)

    def advance_to(self, step: int) -> None:
        self.update(self._bar, completed=step)

    def show(self, epoch: int, figures: str) -> None:
        self._figures = figures
        self.update(self._bar, description=f"epoch {epoch}")

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        yield Text(self._figures)


def drop_records_after(path: Path, step: int) -> None:
    """Keep the records up to ``step``: a run resumed there will write the others again."""
    text = path.read_bytes() if path.is_file() else b""
    if text and not text.endswith(b"\n"):
        logger.warning("%s: dropping its last line, which is incomplete", path)
    kept = [record for record in read_records(path) if record["step"] <= step]
    with replaced_file(path) as file:
        file.write_text("".join(to_json(record) + "\n" for record in kept))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
