"""Training progress and the conditions that end a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cove_dist.config.trainer import TrainerConfig
from cove_dist.evaluation.declarations import higher_is_better


@dataclass
class Progress:
    """Training progress: step, epoch, batches of the epoch, early stopping."""

    step: int = 0
    epoch: int = 0  # epochs completed
    batches: int = 0  # batches trained in the current epoch
    best: float | None = None  # best value of the early-stopping metric over the validations that count
    validations_without_gain: int = 0
    validation_due: bool = False  # a validation within the epoch was to begin, or was ended by a signal
    steps_before: int = 0  # of the runs that this one started from: Adam's correction of the moments counts them

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Progress:
        """Restore progress from a checkpoint."""
        former = dict(values)
        if "epochs_without_gain" in former:  # of checkpoints from when only epochs were validated
            former["validations_without_gain"] = former.pop("epochs_without_gain")
        return cls(**former)

    def note_gain(self, metric: str, value: float) -> None:
        """Update the best value of the early-stopping metric after a validation; nan is never an improvement."""
        sign = 1 if higher_is_better(metric) else -1
        if sign * value > (-math.inf if self.best is None else sign * self.best):
            self.best, self.validations_without_gain = value, 0
        else:
            self.validations_without_gain += 1

    def out_of_steps(self, settings: TrainerConfig) -> bool:
        """Return whether ``max_steps`` are done."""
        return settings.max_steps is not None and self.step >= settings.max_steps

    def stalled(self, settings: TrainerConfig) -> bool:
        """Return whether early stopping has exhausted its patience."""
        patience = settings.early_stopping.patience
        return patience is not None and self.validations_without_gain >= patience

    def finished(self, settings: TrainerConfig) -> bool:
        """Return whether all epochs or steps are done, or early stopping has exhausted its patience."""
        return self.stalled(settings) or self.out_of_steps(settings) or self.epoch >= settings.epochs
