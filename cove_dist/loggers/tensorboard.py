"""TensorBoard: ``RUN/tensorboard``."""

from __future__ import annotations

from collections.abc import Mapping

from cove_dist.loggers.base import LoggedRun, Logger, tag


class TensorBoard(Logger):
    """Writes event files; a resumed run hides the events after its first step."""

    def start(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=run.first_step + 1)

    def log(self, kind: str, step: int, epoch: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(tag(kind, name), value, step)

    def close(self, *, failed: bool) -> None:
        self._writer.close()
