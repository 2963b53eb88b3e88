"""Gradient accumulation: one optimizer step for the gradients of several batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist
from torchrec.optim.keyed import CombinedOptimizer

from cove_dist.errors import ConfigError
from cove_dist.tasks.base import Step, StepOutput
from cove_dist.training.build import TrainState
from data_pipeline.batch import Batch
from data_pipeline.streaming.loader import StreamLoader


def steps_of_epoch(batches: int, steps: int) -> int:
    """Return the number of optimizer steps of an epoch.

    Args:
        batches: Batches of an epoch.
        steps: ``trainer.accumulate_steps``, the batches of a step.

    Raises:
        ConfigError: A step would have fewer batches than requested.
    """
    if steps > max(1, batches):
        raise ConfigError(
            f"trainer.accumulate_steps = {steps}: an epoch has {batches} batches, so no step takes more; allowed: 1 to"
            f" {max(1, batches)}, or a smaller trainer.batch_size"
        )
    return -(-batches // steps)


class AccumulatingPipeline(TrainPipelineSparseDist):
    """Updates the parameters after several batches, by the mean of the batches' gradients weighted by `shares`.

    With the batches' shares of the rows this is the gradient of one batch of all their rows, for losses that are means
    over rows. Every batch's gradients are all-reduced over ranks where the parameters are data-parallel.

    Args:
        train_state: Model and optimizer; no table may be updated in the backward pass.
        device: Device of this rank.
        steps: Number of batches of a step; the last step of an epoch may have fewer.

    Attributes:
        shares: Weights of the batches of the next step, whose sum is 1.
    """

    skipped = False

    def __init__(self, train_state: TrainState, device: torch.device, steps: int) -> None:
        super().__init__(train_state.model, _Idle([]), device)
        self._updates, self._steps = train_state.optimizer, steps
        self._share = 1.0
        self.shares: Sequence[float] = ()

    def take(self, loader: StreamLoader, first: int) -> int:
        """Choose the batches of the next step, with their shares of its rows; return their number."""
        rows = loader.rows_of(first, min(first + self._steps, len(loader)))
        self.shares = [each / sum(rows) for each in rows]
        return len(rows)

    def progress(self, dataloader_iter: Iterator[Batch]) -> StepOutput:
        """Train on as many batches as there are `shares`, and update the parameters once."""
        if not self.shares:
            raise StopIteration  # the gradients of the last step remain, for its report
        self._updates.zero_grad()
        outputs = []
        for share in self.shares:
            self._share = share
            outputs.append(super().progress(dataloader_iter))
        self._updates.step()
        return _merged(outputs)

    def _backward(self, losses: torch.Tensor) -> None:
        super()._backward(losses * self._share)


class _Idle(CombinedOptimizer):
    """Stands in for the optimizer within a step, where a pipeline would clear gradients and update parameters."""

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Keep the gradients."""

    def step(self, closure: Any = None) -> None:
        """Keep the parameters."""


def _merged(outputs: Sequence[StepOutput]) -> Step:
    rows = sum(output.rows for output in outputs)
    losses = {
        name: torch.stack([output.losses[name] * (output.rows / max(rows, 1)) for output in outputs]).sum()
        for name in outputs[0].losses
    }
    return Step(rows, losses)
