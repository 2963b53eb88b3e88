"""What every task offers to the configuration, the trainer and the programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from torch import nn

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import Groups
from data_pipeline.schema import Schema

if TYPE_CHECKING:
    from cove_dist.tasks.base import EpochHook, TaskModel
    from data_pipeline.streaming.loader import StreamLoader

Evaluator = Callable[[nn.Module], dict[str, float]]  # of one split; a collective call


class Task(ABC):
    """One task. Its methods import TorchRec when they are called, so that composing a configuration stays quick.

    Attributes:
        name: The name by which a model's class, ``configs/task`` and ``configs/trainer`` refer to the task.
        title: The name in messages.
        section: The section of the configuration that only this task has, if any.
        by_frequency: Whether metrics are computed for groups of ids by frequency as well.
        saves_predictions: Whether an evaluation can write the score of every row.
        recommends: Whether ``cove recommend`` serves the models of the task.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    section: ClassVar[str | None] = None
    by_frequency: ClassVar[bool] = True
    saves_predictions: ClassVar[bool] = False
    recommends: ClassVar[bool] = False

    @abstractmethod
    def build_model(self, config: RunConfig, schema: Schema) -> TaskModel:
        """Build the model, with tables on the meta device, from torch's global generator."""

    @abstractmethod
    def build_training_loader(self, config: RunConfig, schema: Schema, runtime: DistributedContext) -> StreamLoader:
        """Build the loader of this rank's training batches."""

    @abstractmethod
    def build_evaluator(
        self, config: RunConfig, schema: Schema, split: str, runtime: DistributedContext, groups: Groups
    ) -> Evaluator:
        """Build a pass over a split that returns the metrics; ``groups`` of ids are for tasks ``by_frequency``."""

    def build_epoch_hook(
        self, config: RunConfig, schema: Schema, runtime: DistributedContext, model: TaskModel, loader: StreamLoader
    ) -> EpochHook | None:
        """Build what happens at the start of every training epoch, if anything.

        Args:
            config, schema, runtime: Of the run.
            model: Sharded and initialized.
            loader: Of the training batches, from `build_training_loader`.
        """
        return None

    def signature(self, config: RunConfig) -> dict[str, Any]:
        """Return what must agree, besides the model, tables and codebooks, for a checkpoint to fit."""
        return {}

    def check(self, config: RunConfig) -> None:
        """Refuse settings that the task does not support.

        Raises:
            ConfigError: The section of the task is missing, or a setting is not supported.
        """
        if self.section is not None and getattr(config, self.section) is None:
            raise ConfigError(f"{self.section}: missing")
        self.check_quantizer(config)

    def check_quantizer(self, config: RunConfig) -> None:
        """Refuse quantizer settings that the task does not support.

        Raises:
            ConfigError: The message names the key and what is allowed.
        """
        if config.quantizer.omega_c:
            raise ConfigError(
                f"quantizer.omega_c = {config.quantizer.omega_c}: codes are classified where lists are continued, not"
                f" in the task {self.name}; allowed: 0"
            )
