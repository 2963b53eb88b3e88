"""Training progress and the conditions that end a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cove_dist.config.trainer import TrainerConfig
from cove_dist.evaluation.declarations import higher_is_better


@dataclass
class Progress:
    """Training progress: step, epoch, batches of the epoch, early stopping."""

    step: int = 0
    epoch: int = 0  # epochs completed
    batches: int = 0  # batches trained in the current epoch
    best: float | None = None  # best value of the early-stopping metric over completed epochs
    epochs_without_gain: int = 0

    def note_gain(self, metric: str, value: float) -> None:
        """Update the best value of the early-stopping metric after an epoch; nan is never an improvement."""
        sign = 1 if higher_is_better(metric) else -1
        if sign * value > (-math.inf if self.best is None else sign * self.best):
            self.best, self.epochs_without_gain = value, 0
        else:
            self.epochs_without_gain += 1

    def out_of_steps(self, settings: TrainerConfig) -> bool:
        """Return whether ``max_steps`` are done."""
        return settings.max_steps is not None and self.step >= settings.max_steps

    def finished(self, settings: TrainerConfig) -> bool:
        """Return whether all epochs or steps are done, or early stopping has exhausted its patience."""
        patience = settings.early_stopping.patience
        stalled = patience is not None and self.epochs_without_gain >= patience
        return stalled or self.out_of_steps(settings) or self.epoch >= settings.epochs
