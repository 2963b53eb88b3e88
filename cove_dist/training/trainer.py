"""What trains: model, data and progress of one run, from construction or a checkpoint to its end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cove_dist.checkpoints.files import CheckpointFolder, CheckpointMeta, read_meta
from cove_dist.checkpoints.io import load_training_state, newest_sound
from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.faults.finite import LossCheck, check_state
from cove_dist.runs import CHECKPOINTS
from cove_dist.tasks.base import StepOutput
from cove_dist.tasks.registry import task_of
from cove_dist.training.accumulation import steps_of_epoch
from cove_dist.training.build import build, build_validation, describe_model
from cove_dist.training.codebooks import Codebooks
from cove_dist.training.debug import show_shapes_once
from cove_dist.training.loop import TrainingLoop
from cove_dist.training.metrics import IntervalMetrics
from cove_dist.training.pipelines import build_pipeline
from cove_dist.training.progress import Progress
from cove_dist.training.resume import Change, changes_since, check_same_optimizers
from cove_dist.training.summary import show_start
from data_pipeline.batch import Batch
from data_pipeline.errors import DataError
from data_pipeline.fingerprint import data_fingerprint
from data_pipeline.schema import Schema

if TYPE_CHECKING:
    from cove_dist.training.warm_start import WarmStart

logger = logging.getLogger(__name__)


class Trainer:
    """Trains one configuration. Construction, `resume` and `train` are collective calls.

    Args:
        config: Configuration of the run.
        schema: Schema of the prepared data.
        context: Context of this rank.
    """

    def __init__(self, config: RunConfig, schema: Schema, context: DistributedContext) -> None:
        self.config = config
        self.schema = schema
        self.context = context
        self.progress = Progress()
        self.resumed = False
        self.warm_start: WarmStart | None = None  # what this process started the run from
        self.stopped_by = 0  # number of the signal that ended `train` early
        task = task_of(config)
        task.check_data(config, schema)
        self.train_loader = task.build_training_loader(config, schema, context)
        self.evaluator = build_validation(config, schema, context)
        rows = config.trainer.rank_batch_size(context.world_size)
        self.train_state = build(config, schema, context, rows, self.steps_per_epoch)
        model = self.train_state.model.module
        self.train_state.epoch_hook = task.build_epoch_hook(config, schema, context, model, self.train_loader)
        self.pipeline = build_pipeline(config, self.train_state, context.device)
        quantizers = dict(model.objective.quantizers.items())
        optimizer, warm = self.train_state.optimizer, config.warm_start.run is not None
        self.codebooks = Codebooks(quantizers, config.quantizer, config.seed, context, optimizer, warm=warm)
        self.interval_metrics = IntervalMetrics(quantizers, context)
        self.losses = LossCheck(context)
        if config.trainer.debug:
            show_shapes_once(model)

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps of an epoch."""
        return steps_of_epoch(len(self.train_loader), self.config.trainer.accumulate_steps)

    def resume(self, folder: Path) -> list[Change]:
        """Load the newest intact checkpoint of a run folder, if any; return the changed settings. Writes nothing.

        Raises:
            ConfigError: A setting changed that must not.
            CheckpointError, DataError: The checkpoint is of another model or data, or all checkpoints are damaged.
        """
        path = newest_sound(CheckpointFolder(folder / CHECKPOINTS))
        if path is None:
            logger.info("Starting a new run in %s: it has no complete checkpoint to resume from", folder)
            return []
        self.resumed = True
        changes = changes_since(folder, read_meta(path), self.config, self.fingerprint, self.context.world_size)
        self._load(path)
        logger.info("Resumed from %s", path)
        return changes

    def _load(self, path: Path) -> None:
        """Load a checkpoint."""
        self.train_state.create_optimizer_state()
        check_same_optimizers(path, self.train_state.optimizer, self.context.device.type)
        model = describe_model(self.config, self.schema)
        meta, states = load_training_state(path, self.train_state, self.context, model)
        self.progress = Progress.of(meta.progress)
        self.train_state.set_step(meta.step, self.progress.steps_before)
        self.codebooks.load_state_dict(*(state["codebooks"] for state in states))
        if meta.world_size == self.context.world_size:
            self.interval_metrics.load_state_dict(states[0]["window"])
        else:
            logger.warning(
                "Checkpoint %s was saved with world_size=%d but world_size is %d; resetting the random generators of"
                " dropout and the metrics since the last report",
                path, meta.world_size, self.context.world_size,
            )  # fmt: skip
        if meta.loader is not None:
            self.train_loader.load_state_dict(meta.loader)

    def start_warm(self) -> None:
        """Start from the run that ``warm_start.run`` names, if it does and this run is not resumed. Collective.

        Raises:
            ConfigError, CheckpointError, DataError: As `cove_dist.training.warm_start.start_warm`.
        """
        if self.config.warm_start.run is None or self.resumed:
            return
        from cove_dist.training.warm_start import start_warm  # with duckdb, of an extra of this package

        self.warm_start = start_warm(self.config, self.schema, self.context, self.train_state)
        self.progress.steps_before = self.warm_start.steps

    def train(self, folder: Path | None) -> Progress:
        """Train to the end: all epochs, ``max_steps``, early stopping, or a signal (`stopped_by`), which saves first.

        Args:
            folder: Run folder to write to; None: write nothing (debug mode).

        Raises:
            TrainingError: Training diverged, or data-parallel parameters drifted apart; raised on every rank.
        """
        loop = TrainingLoop(self, folder)
        if self.context.is_main:
            show_start(self.train_state.model, self.context, self.config, self.schema, self.steps_per_epoch)
        self.train_state.model.train()
        self.stopped_by = loop.run()
        return self.progress

    def start_epoch(self) -> None:
        """Prepare the loader and the task for the current epoch, or for what is left of it."""
        self.train_loader.set_epoch(self.progress.epoch)
        if self.train_state.epoch_hook is not None and self.progress.batches == 0:
            self.pipeline.detach()
            self.train_state.epoch_hook.start_epoch(self.progress.epoch)

    def steps(self, batches: Iterator[Batch]) -> Iterator[StepOutput]:
        """Train on each batch; the look-ups of the next batch overlap with the dense part of this one."""
        while True:
            taken = self.pipeline.take(self.train_loader, self.progress.batches)
            try:
                output = self.pipeline.progress(batches)
            except StopIteration:
                return
            self.train_state.schedule.step()
            self.progress.step = step = self.progress.step + 1
            self.progress.batches += taken
            if self.pipeline.skipped:
                logger.warning("Step %d is not finite: its update is left out on all ranks (trainer.on_nan=skip)", step)
            else:
                self.losses.note(step, output.losses)
            yield output

    def evaluate(self) -> dict[str, float]:
        """Return the metrics of the validation split.

        Raises:
            DataError: The data have no validation split.
        """
        if self.evaluator is None:
            raise DataError(f"{self.schema.name} has no validation split to evaluate")
        return self.evaluator(self.pipeline.detach())

    def check_and_complete_state(self) -> None:
        """Check that losses and state are finite; set the rows of unseen ids (``embeddings.unseen``). Collective."""
        self.losses.check()
        check_state(self.train_state.state_dict(), self.progress.step)
        if self.config.embeddings.unseen == "codes":
            self.codebooks.set_unseen_rows(self.train_state.model.module.tables, self.schema)

    def rank_state(self) -> dict[str, Any]:
        """Return this rank's state in a checkpoint; the keys are those on disk."""
        return {"codebooks": self.codebooks.state_dict(), "window": self.interval_metrics.state_dict()}

    def describe(self, metrics: dict[str, float], loader: dict[str, Any] | None) -> CheckpointMeta:
        """Return the description of a checkpoint of the current step.

        Args:
            metrics: Metrics of its validation, if there was one.
            loader: State of the loader within an epoch.
        """
        return CheckpointMeta(
            step=self.progress.step,
            world_size=self.context.world_size,
            model=describe_model(self.config, self.schema),
            metrics=metrics,
            progress=asdict(self.progress),
            data=self.fingerprint,
            loader=loader,
        )

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the prepared data, read after the data were checked."""
        return data_fingerprint(self.config.data.path)

    def finished(self) -> bool:
        """Return whether training is finished."""
        return self.progress.finished(self.config.trainer)
