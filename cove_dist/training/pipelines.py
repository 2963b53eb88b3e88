"""Train pipelines; one of them leaves out the update of a step whose loss is not finite on some rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import nn
from torchrec.distributed.train_pipeline import TrainPipelineSparseDist

from cove_dist.config import RunConfig
from cove_dist.distributed import world
from cove_dist.errors import ConfigError, TrainingError
from cove_dist.tasks.base import StepOutput
from cove_dist.training.accumulation import AccumulatingPipeline
from cove_dist.training.build import TrainState
from cove_dist.training.optimization import gradients_are_finite
from data_pipeline.batch import Batch
from data_pipeline.streaming.loader import StreamLoader

_MOST_IN_A_ROW = 10


class Pipeline(Protocol):
    """What takes a training step.

    Attributes:
        skipped: Whether the update of the last step was left out, on all ranks alike.
    """

    skipped: bool

    def take(self, loader: StreamLoader, first: int, /) -> int:
        """Choose the batches of the next step, which begin at an index in the epoch; return their number."""
        ...

    def progress(self, batches: Iterator[Batch], /) -> StepOutput:
        """Train on these batches; raise StopIteration when there is none."""
        ...

    def detach(self) -> nn.Module:
        """Return the model, detached from the pipeline until the next step."""
        ...


class PlainPipeline:
    """Trains on one batch after the other, without the stages of TorchRec's pipelines.

    Data-parallel tables have nothing to exchange before a look-up. On CPU the stages that prepare such an exchange take
    longer than a small step; on CUDA they hide the copy of the next batch.

    Args:
        train_state: Model and optimizer.
        device: Device of this rank.
    """

    skipped = False

    def __init__(self, train_state: TrainState, device: torch.device) -> None:
        self._model, self._optimizer, self._device = train_state.model, train_state.optimizer, device

    def take(self, loader: StreamLoader, first: int) -> int:
        return 1

    def progress(self, batches: Iterator[Batch]) -> StepOutput:
        batch = next(batches).to(self._device, non_blocking=True)
        self._optimizer.zero_grad()
        loss, output = self._model(batch)
        loss.backward()
        self._optimizer.step()
        return output

    def detach(self) -> nn.Module:
        return self._model


class OverlappingPipeline(TrainPipelineSparseDist):
    """TorchRec's pipeline with a batch a step: the look-ups of the next one overlap with the dense part of this one.

    Args:
        train_state: Model and optimizer.
        device: Device of this rank.
    """

    skipped = False

    def __init__(self, train_state: TrainState, device: torch.device) -> None:
        super().__init__(train_state.model, train_state.optimizer, device)

    def take(self, loader: StreamLoader, first: int) -> int:
        return 1


class SkippingPipeline(OverlappingPipeline):
    """Looks at the loss of all ranks before the backward pass, and at the gradients after it.

    Without a backward pass no table is updated, sharded ones included. Gradients of sharded tables are applied inside
    it, so one that is not finite although the losses are ends training there; elsewhere the update is left out as well.
    Both looks wait for the device.

    Args:
        train_state: Model and optimizer.
        device: Device of this rank.
    """

    def __init__(self, train_state: TrainState, device: torch.device) -> None:
        super().__init__(train_state, device)
        self._sharded = bool(train_state.model.fused_optimizer.params)
        self._in_a_row = 0

    def _backward(self, losses: torch.Tensor) -> None:
        self.skipped = not bool(world().min(losses.detach().isfinite().all().int()))
        if not self.skipped:
            super()._backward(losses)

    def _optimizer_step(self) -> None:
        if not self.skipped and not gradients_are_finite(self._model, self._device):
            if self._sharded:
                raise TrainingError(
                    "gradients are not finite although the loss is. Sharded tables are updated in the backward pass,"
                    " which trainer.on_nan=skip cannot undo. Set embeddings.sharding.default=data_parallel, or lower"
                    " the learning rates"
                )
            self.skipped = True
        if not self.skipped:
            self._in_a_row = 0
            return super()._optimizer_step()
        self._in_a_row += 1
        if self._in_a_row > _MOST_IN_A_ROW:
            raise TrainingError(f"{self._in_a_row} steps in a row are not finite: training diverged")
        return None


def build_pipeline(config: RunConfig, train_state: TrainState, device: torch.device) -> Pipeline:
    """Build the pipeline of a run; compile the head first, if that is wanted.

    Raises:
        ConfigError: Steps are to be skipped, and moving averages would keep them.
    """
    sharded = bool(train_state.model.fused_optimizer.params)
    if config.trainer.compile:
        train_state.model.module.objective.compile_head()
    if config.trainer.debug:
        return PlainPipeline(train_state, device)
    if config.trainer.accumulate_steps > 1:
        return AccumulatingPipeline(train_state, device, config.trainer.accumulate_steps)
    if config.trainer.on_nan == "stop" and device.type == "cpu" and not sharded:
        return PlainPipeline(train_state, device)
    if config.trainer.on_nan == "stop":
        return OverlappingPipeline(train_state, device)
    if config.quantizer.levels() and config.quantizer.learning == "ema":
        raise ConfigError(
            "trainer.on_nan = skip: codebooks that are moving averages change in the forward pass, which cannot be"
            " undone; allowed: stop, or quantizer.learning=gradient"
        )
    return SkippingPipeline(train_state, device)
