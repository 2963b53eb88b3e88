"""The training loop."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from cove_dist.checkpoints.files import CheckpointFolder, CheckpointMeta
from cove_dist.checkpoints.io import CheckpointWriter
from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext
from cove_dist.errors import TrainingError
from cove_dist.faults.agreement import Agreement, EvaluationStopped
from cove_dist.faults.finite import LossCheck
from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.faults.signals import deferred_signals
from cove_dist.runs import CHECKPOINTS
from cove_dist.tasks.base import StepOutput
from cove_dist.tasks.registry import task_of
from cove_dist.training import validation
from cove_dist.training.accumulation import steps_of_epoch
from cove_dist.training.build import build, build_validation, describe_model
from cove_dist.training.codebooks import Codebooks
from cove_dist.training.debug import show_shapes_once
from cove_dist.training.metrics import IntervalMetrics
from cove_dist.training.optimization import data_parallel_state, gradient_norm, learning_rates
from cove_dist.training.pipelines import build_pipeline
from cove_dist.training.profiling import StepProfiler
from cove_dist.training.progress import Progress
from cove_dist.training.replicas import check_replicas
from cove_dist.training.reporting import start_reporter
from cove_dist.training.resume import Change, resume
from cove_dist.training.summary import show_start
from data_pipeline.batch import Batch
from data_pipeline.errors import DataError
from data_pipeline.fingerprint import data_fingerprint
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import EpochIterator

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
        return resume(self, folder)

    def train(self, folder: Path | None) -> Progress:
        """Train to the end: all epochs, ``max_steps``, early stopping, or a signal (`stopped_by`), which saves first.

        Args:
            folder: Run folder to write to; None: write nothing (debug mode).

        Raises:
            TrainingError: Training diverged, or data-parallel parameters drifted apart; raised on every rank.
        """
        self._start_writing(folder)
        if self.context.is_main:
            show_start(self.train_state.model, self.context, self.config, self.schema, self.steps_per_epoch)
        self.train_state.model.train()
        with self.reporter, deferred_signals() as request, self.profiler:
            settings = self.config.trainer
            self.agreement = Agreement(request, settings.checkpoint.every_minutes, settings.validate_every_minutes)
            try:
                if self.warm_start is not None:
                    self._report_start()
                while not (self.finished() or self.stopped_by):
                    self._start_epoch()
                    with closing(iter(self.train_loader)) as batches:
                        self._train_epoch(batches)
            except TrainingError:  # raised on all ranks; the save in progress is of a valid state
                self._stop_writing()
                raise
            self.stopped_by = self.agreement.close() or self.stopped_by
            self._stop_writing()
        return self.progress

    def _report_start(self) -> None:
        """Evaluate and save the start from another run, which may remain the best checkpoint."""
        metrics = {} if self.evaluator is None else self.evaluate()
        if metrics:
            self.note_gain(metrics)
            self.reporter.record("validation", 0, 0, metrics)
        self.save(None, metrics)

    def note_gain(self, metrics: dict[str, float]) -> None:
        """Count a validation for early stopping."""
        watched = self.config.trainer.early_stopping.metric
        self.progress.note_gain(watched, metrics[watched])
        self.agreement.note_validated(self.progress.step)

    def _start_epoch(self) -> None:
        self.train_loader.set_epoch(self.progress.epoch)
        if self.train_state.epoch_hook is not None and self.progress.batches == 0:
            self.pipeline.detach()
            self.train_state.epoch_hook.start_epoch(self.progress.epoch)

    def _train_epoch(self, batches: EpochIterator) -> None:
        if self.progress.validation_due:  # of the run that is resumed
            validation.validate_within_epoch(self, batches)
        if self.ends_within_epoch():
            return
        for output in self.steps(batches):
            self._after_step(output, batches)
            if self.ends_within_epoch():
                return
            if self.progress.out_of_steps(self.config.trainer):
                break
        self._end_epoch(batches)

    def ends_within_epoch(self) -> bool:
        """Return whether training ends within the epoch, after a signal or a validation without gain."""
        return bool(self.stopped_by) or self.progress.stalled(self.config.trainer)

    def _start_writing(self, folder: Path | None) -> None:
        """Set up the writers of the folder; drop records and partial checkpoints after the current step."""
        settings, step = self.config.trainer, self.progress.step
        policy = FullDiskPolicy(settings.on_disk_full)
        self.writer = None
        if folder is not None:
            files = CheckpointFolder(folder / CHECKPOINTS)
            keep, metric = settings.checkpoint.keep, settings.early_stopping.metric
            self.writer = CheckpointWriter(files, self.context, keep, metric, step, policy)
        self._reported = step
        steps = settings.total_steps(self.steps_per_epoch)
        self.reporter = start_reporter(self.config, folder, self.context, step, steps, policy)
        self.profiler = StepProfiler(settings.profile, folder, self.context)

    def _stop_writing(self) -> None:
        if self.writer is not None:
            self.writer.close()

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

    def _after_step(self, output: StepOutput, batches: EpochIterator) -> None:
        """Maintain the codebooks, report, compare data-parallel parameters and save, each at its interval."""
        settings, step = self.config.trainer, self.progress.step
        self.interval_metrics.add(output, self.codebooks.after_step(step), skipped=self.pipeline.skipped)
        self.reporter.advance(step)
        self.profiler.after_step(step)
        if step == 1 or step % settings.log_every == 0:
            self._report()
        if self.context.world_size > 1 and step % settings.check_replicas_every == 0:
            check_replicas(data_parallel_state(self.train_state.model))
        if self.writer is not None:
            self.writer.poll()
        validation.validate_or_save_within_epoch(self, batches, self.agreement.after_step(step))

    def record_validation(self, batches: EpochIterator, metrics: dict[str, float]) -> None:
        """Record and save the metrics, after the training steps before them if these are the last."""
        if self.finished() and self.progress.step > self._reported:
            self._report()
        with self.interval_metrics.paused():
            if metrics:
                self.reporter.record("validation", self.progress.step, self.progress.epoch, metrics)
            self.save(batches, metrics)

    def _report(self) -> None:
        """Report the steps since the last report: at step 1, every ``log_every`` steps, and at the last step."""
        self.losses.check()
        whole = (step := self.progress.step) % self.config.trainer.log_every == 0
        metrics = self.interval_metrics.close(whole=whole) | learning_rates(self.train_state.optimizer)
        if (norm := gradient_norm(self.train_state.model)) is not None:
            metrics["gradient_norm"] = norm.item()
        best = {} if self.progress.best is None else {"best": self.progress.best}
        self.reporter.record("train", step, self.progress.epoch, metrics, shown=best)
        if whole:
            self.codebooks.watch(metrics)
        self._reported = step

    def _end_epoch(self, batches: EpochIterator) -> None:
        """Evaluate and save; report the training steps before. A signal in the validation saves the state before it."""
        try:
            with self.interval_metrics.paused():
                metrics = self._close_epoch()
        except EvaluationStopped as stop:
            self.save(batches, {})
            self.stopped_by = stop.number
            return
        self.record_validation(batches, metrics)

    def _close_epoch(self) -> dict[str, float]:
        """Evaluate; of an epoch cut short by ``max_steps``, only a validation that is due counts for early stopping."""
        validation.check_and_complete_state(self)
        metrics: dict[str, float] = {}
        if self.evaluator is not None:
            last = self.progress.out_of_steps(self.config.trainer)  # a resumed run would not validate it again
            with nullcontext() if last else self.agreement.stopping_evaluation():
                metrics = self.evaluate()
        whole = self.progress.batches == len(self.train_loader)
        if metrics and (whole or validation.is_due(self.progress.step, self.config.trainer.validate_every_steps)):
            self.note_gain(metrics)
        if whole:
            self.progress.epoch, self.progress.batches = self.progress.epoch + 1, 0
            if codes := self.codebooks.close_epoch():
                self.reporter.record("codebooks", self.progress.step, self.progress.epoch, codes)
        return metrics

    def evaluate(self) -> dict[str, float]:
        """Return the metrics of the validation split.

        Raises:
            DataError: The data have no validation split.
        """
        if self.evaluator is None:
            raise DataError(f"{self.schema.name} has no validation split to evaluate")
        return self.evaluator(self.pipeline.detach())

    def save(self, batches: EpochIterator | None, metrics: dict[str, float]) -> None:
        """Write a checkpoint with the metrics of its validation, if there was one."""
        if self.writer is None:
            return
        loader = batches.state_after(self.progress.batches) if batches is not None and self.progress.batches else None
        state = {"codebooks": self.codebooks.state_dict(), "window": self.interval_metrics.state_dict()}  # keys on disk
        description = describe_model(self.config, self.schema)
        progress, world_size = asdict(self.progress), self.context.world_size
        meta = CheckpointMeta(self.progress.step, world_size, description, metrics, progress, self.fingerprint, loader)
        self.writer.save(self.train_state.state_dict(), state, meta)
        self.agreement.note_saved(self.progress.step)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the prepared data, read after the data were checked."""
        return data_fingerprint(self.config.data.path)

    def finished(self) -> bool:
        """Return whether training is finished."""
        return self.progress.finished(self.config.trainer)
