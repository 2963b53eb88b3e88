"""The interface of tasks to the configuration, the trainer and the programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import nn

from cove_dist.config import RunConfig
from cove_dist.config.checks import Component
from cove_dist.config.late_settings import late_settings
from cove_dist.config.rules import Rule
from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.evaluation import Groups
from cove_dist.evaluation.protocol import RankingProtocol
from cove_dist.tasks.quantizers import mention_idle_codes
from cove_dist.tasks.unseen import check_unseen
from data_pipeline.schema import Entity, Schema

if TYPE_CHECKING:
    from cove_dist.tasks.base import EpochHook, PopularityBaseline, Retriever, RetrieverSettings, TaskModel
    from cove_dist.tasks.inference import Inference
    from cove_dist.tasks.new_rows import NewRows
    from data_pipeline.streaming.loader import StreamLoader

Evaluator = Callable[[nn.Module], dict[str, float]]  # evaluates one split; a collective call
C = TypeVar("C", bound=RunConfig)


class Lookups(NamedTuple):
    """Ids that a rank looks up in a training step, by feature of the tables.

    Attributes:
        per_row: Ids of a row.
        per_batch: Ids of a batch, whatever its rows.
        rows_scored: Rows, of this rank or of all, that are scored against the ids of a batch.
    """

    per_row: dict[str, int]
    per_batch: dict[str, int]
    rows_scored: int

    def of(self, feature: str, rows: int) -> int:
        """Return the ids of a feature in a batch of so many rows."""
        return self.per_row.get(feature, 0) * rows + self.per_batch.get(feature, 0)


class Task(ABC, Generic[C]):
    """One task, for the configuration ``C`` of its runs.

    Its methods import TorchRec when they are called, so that composing a configuration stays quick.

    Attributes:
        name: Name of the task in models' classes, ``configs/task`` and ``configs/trainer``.
        title: Name in messages.
        config: Class of the task's run configurations, with the sections specific to this task.
        rules: Conditions under which settings of these sections have an effect.
        by_frequency: Whether metrics are computed for groups of ids by frequency as well.
        classifies_codes: Whether ``quantizer.omega_c`` applies.
        saves_predictions: Whether an evaluation can write the score of every row.
        loss: Base class of the losses that ``loss`` may choose; None: the task has one loss.
        recommends_on_ranks: Whether ``cove recommend`` shares the users of the task's models among ranks.
        has_popularity_baseline: Whether the task's metrics are defined for the ranking of items by popularity.
        data_form: Rows of the task's data: ``labels``, examples with a label; ``positives`` of implicit feedback; or
            ``sequences``.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    config: type[C]
    rules: tuple[Rule[C], ...] = ()
    by_frequency: ClassVar[bool] = True
    classifies_codes: ClassVar[bool] = False
    saves_predictions: ClassVar[bool] = False
    loss: ClassVar[type[nn.Module] | None] = None
    recommends_on_ranks: ClassVar[bool] = False
    has_popularity_baseline: ClassVar[bool] = False
    data_form: ClassVar[Literal["labels", "positives", "sequences"]] = "labels"

    @abstractmethod
    def build_model(self, config: C, schema: Schema) -> TaskModel:
        """Build the model, with tables on the meta device, from torch's global generator."""

    @abstractmethod
    def build_training_loader(self, config: C, schema: Schema, context: DistributedContext) -> StreamLoader:
        """Build the loader of this rank's training batches."""

    @abstractmethod
    def build_evaluator(
        self, config: C, schema: Schema, split: str, context: DistributedContext, groups: Groups
    ) -> Evaluator:
        """Build the evaluator of a split; ``groups`` of ids are for tasks with ``by_frequency``."""

    def inference_class(self) -> type[Inference[Any]]:
        """Return the class of inference in one process: scores, recommendations, embeddings and codes.

        Raises:
            ConfigError: The task has no inference.
        """
        raise ConfigError(f"the task {self.name} ({self.title}) has no inference; its runs can be evaluated only")

    def build_epoch_hook(
        self, config: C, schema: Schema, context: DistributedContext, model: TaskModel, loader: StreamLoader
    ) -> EpochHook | None:
        """Build the task's work at the start of every training epoch; None if there is none.

        Args:
            config, schema, context: Configuration, data and distributed context of the run.
            model: Sharded and initialized model.
            loader: Loader of the training batches, from `build_training_loader`.
        """
        return None

    def row_counts(self, config: C, schema: Schema) -> dict[str, torch.Tensor]:
        """Return how often the id of every table row occurs in training, int64 ``[rows]`` by table."""
        from cove_dist.tasks.frequency import row_counts

        return row_counts(config.data.path, schema)

    def lookups(self, config: C, schema: Schema, rows: int, world_size: int) -> Lookups:
        """Return how many ids a training step looks up, at most.

        Args:
            config, schema: Configuration and data of the run.
            rows: Rows of a rank's batch.
            world_size: Number of ranks.
        """
        per_row = {column.name: max(1, column.max_length) for column in schema.categorical}
        return Lookups(per_row, {}, rows)

    def unplannable(self, config: C) -> str | None:
        """Return why a training step of the model cannot be planned from sizes alone; None if it can."""
        return None

    def build_new_rows(
        self,
        config: C,
        schema: Schema,
        context: DistributedContext,
        model: TaskModel,
        trained: Mapping[Entity, np.ndarray],
    ) -> NewRows | None:
        """Build what ``warm_start.new_rows`` makes of the neighbors of new ids; None if the task knows none.

        Args:
            config, schema, context: Configuration, data and distributed context of the run.
            model: Sharded model with the rows of the run to start from.
            trained: Whether each user, and each item, has such a row: bool ``[ids]``.

        Raises:
            ConfigError: The task or the model does not support ``warm_start.new_rows``.
        """
        start = config.warm_start.new_rows
        if start in ("code", "fold_in"):
            raise ConfigError(
                f"warm_start.new_rows = {start}: needs the neighbors of users and items; the task {self.name} has"
                " none; allowed: random, zero, mean"
            )
        return None

    def late_settings(self, config: C, steps_per_epoch: int) -> list[str]:
        """Return a warning for each setting that begins to act after the last step of the run.

        Args:
            config: Configuration of the run.
            steps_per_epoch: Optimizer steps per epoch.
        """
        return late_settings(config, config.trainer.total_steps(steps_per_epoch))

    def data_bound(self, config: C) -> str | None:
        """Return the setting whose weights fit one data set only, so that other data cannot start from them."""
        return None

    def build_saving_evaluator(
        self, config: C, schema: Schema, split: str, context: DistributedContext, groups: Groups, folder: Path
    ) -> Evaluator:
        """Build an evaluator that also writes the score of every row into a folder; for tasks that save predictions."""
        raise NotImplementedError(f"{self.name}: saves no predictions")

    def build_retriever(
        self, schema: Schema, model: TaskModel, context: DistributedContext, settings: RetrieverSettings
    ) -> Retriever:
        """Build the retriever of the best items, for tasks that recommend on ranks. Collective.

        Args:
            schema, context: Data of the run and distributed context.
            model: Sharded model in eval mode, without its wrapper.
            settings: What is listed.
        """
        raise NotImplementedError(f"{self.name}: recommends in one process, by `inference_class`")

    def build_popularity_baseline(self, evaluation: Mapping[str, Any], data: str, schema: Schema) -> PopularityBaseline:
        """Build the popularity baseline.

        Args:
            evaluation: Values of the section ``evaluation`` of the task.
            data, schema: Folder and schema of the prepared data.

        Raises:
            ConfigError: A value is invalid, or the data do not fit the task.
        """
        raise NotImplementedError(f"{self.name}: has no popularity baseline")

    @abstractmethod
    def metric_names(self, config: C, split: str, schema: Schema | None = None) -> list[str]:
        """Return the names of a split's metrics, as metrics files have them.

        Args:
            config: Configuration of the run.
            split: ``validation`` or ``test``.
            schema: Schema of the data; None: return the metrics available with any data.
        """

    @abstractmethod
    def protocol(self, config: C, schema: Schema, split: str) -> RankingProtocol:
        """Return the ranking protocol of a split, which must agree between compared metrics.

        Raises:
            ConfigError: The data lack columns that the evaluation settings require.
        """

    def signature(self, config: C) -> dict[str, Any]:
        """Return further settings that must agree for a checkpoint to fit, besides model, tables and codebooks."""
        return {}

    def weights(self, config: C) -> dict[str, float]:
        """Return the weights, by key, that make training diverge if they are too large; 0 for those not in use."""
        optimizer = config.embeddings.optimizer
        return {
            "embeddings.optimizer.weight_decay": optimizer.weight_decay,
            "embeddings.optimizer.weight_decay_frequency_power": optimizer.weight_decay_frequency_power,
        }

    def check(self, config: C) -> None:
        """Refuse settings that the task does not support.

        Raises:
            ConfigError: A setting is not supported, or early stopping watches a metric that the task does not have.
        """
        omega_c = config.quantizer.omega_c
        if omega_c and not self.classifies_codes:
            raise ConfigError(
                f"quantizer.omega_c = {omega_c}: codes are not classified in the task {self.name}; allowed: 0"
            )
        parts = config.trainer.accumulate_steps
        if parts > 1 and config.quantizer.levels() and config.quantizer.learning == "ema":
            raise ConfigError(
                f"trainer.accumulate_steps = {parts}: moving averages change with every batch; allowed: 1, or"
                " quantizer.learning=gradient"
            )
        if config.loss is not None and self.loss is None:
            raise ConfigError(f"loss = {config.loss.get('_target_')}: the task {self.name} has one loss; allowed: null")
        if config.loss is not None and self.loss is not None:
            Component.resolve(self.loss, config.loss, "loss", "loss")
        metrics = self.metric_names(config, "validation")
        if twice := {name for name in metrics if metrics.count(name) > 1}:
            raise ConfigError(
                f"evaluation.metrics: {', '.join(sorted(twice))}: the task {self.name} has a metric of this name;"
                " choose another for @declares"
            )
        config.trainer.early_stopping.check(metrics, f"the task {self.name}")

    def check_data(self, config: C, schema: Schema) -> None:
        """Refuse settings of evaluation that do not fit the data, before training.

        Raises:
            ConfigError: A setting does not fit the data; the message names the key and the allowed values.
        """
        metrics = self.metric_names(config, "validation", schema)
        config.trainer.early_stopping.check(metrics, f"the data {schema.name}")
        self.protocol(config, schema, "validation")
        check_unseen(config, schema)
        mention_idle_codes(config, schema)
        for key in ("validate_every_steps", "validate_every_minutes"):
            value = getattr(config.trainer, key)
            if value is not None and not schema.has_split("validation"):
                raise ConfigError(f"trainer.{key} = {value}: {schema.name} has no validation split; allowed: null")
        if schema.weight is not None and config.trainer.accumulate_steps > 1:
            raise ConfigError(
                f"trainer.accumulate_steps = {config.trainer.accumulate_steps}: not with the sample weights of"
                f" {schema.name}, whose sum over a step is not known before its last batch; allowed: 1, or data"
                " prepared without weight"
            )
