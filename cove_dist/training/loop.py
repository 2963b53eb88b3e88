"""The loop over epochs and steps: reports, validations and saves at their intervals, and how training ends."""

from __future__ import annotations

from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.checkpoints.io import CheckpointWriter
from cove_dist.errors import TrainingError
from cove_dist.faults.agreement import Agreement, Decision, EvaluationStopped
from cove_dist.faults.full_disk import FullDiskPolicy
from cove_dist.faults.signals import StopRequest, deferred_signals
from cove_dist.runs import CHECKPOINTS
from cove_dist.tasks.base import StepOutput
from cove_dist.training.optimization import data_parallel_state, gradient_norm, learning_rates
from cove_dist.training.profiling import StepProfiler
from cove_dist.training.replicas import check_replicas
from cove_dist.training.reporting import start_reporter
from data_pipeline.streaming.loader import EpochIterator

if TYPE_CHECKING:
    from cove_dist.training.trainer import Trainer


class TrainingLoop:
    """Trains to the end of a run or a signal, and writes reports, checkpoints and profiles. Collective.

    Args:
        trainer: The model, the data and how far training is.
        folder: Run folder; its records and partial checkpoints after the current step are dropped. None: write nothing.

    Attributes:
        stopped_by: Number of the signal that ends `run` early; 0 without one.
    """

    def __init__(self, trainer: Trainer, folder: Path | None) -> None:
        self.trainer, self.progress, self.settings = trainer, trainer.progress, trainer.config.trainer
        settings, step = self.settings, self.progress.step
        policy = FullDiskPolicy(settings.on_disk_full)
        self.writer: CheckpointWriter | None = None
        if folder is not None:
            files = CheckpointFolder(folder / CHECKPOINTS)
            keep, metric = settings.checkpoint.keep, settings.early_stopping.metric
            self.writer = CheckpointWriter(files, trainer.context, keep, metric, step, policy)
        steps = settings.total_steps(trainer.steps_per_epoch)
        self.reporter = start_reporter(trainer.config, folder, trainer.context, step, steps, policy)
        self.profiler = StepProfiler(settings.profile, folder, trainer.context)
        self._request = StopRequest()
        self.agreement = Agreement(self._request, settings.checkpoint.every_minutes, settings.validate_every_minutes)
        self.stopped_by = 0
        self._reported = step

    def run(self) -> int:
        """Train until the run is finished or a signal arrives; return `stopped_by`.

        Raises:
            TrainingError: As `Trainer.train`.
        """
        with self.reporter, deferred_signals(self._request), self.profiler:
            try:
                if self.trainer.warm_start is not None:
                    self._report_start()
                while not (self.trainer.finished() or self.stopped_by):
                    self.trainer.start_epoch()
                    with closing(iter(self.trainer.train_loader)) as batches:
                        self._train_epoch(batches)
            except TrainingError:  # raised on all ranks; the save in progress is of a valid state
                self._stop_writing()
                raise
            self.stopped_by = self.agreement.close() or self.stopped_by
            self._stop_writing()
        return self.stopped_by

    def _report_start(self) -> None:
        """Evaluate and save the start from another run, which may remain the best checkpoint."""
        metrics = {} if self.trainer.evaluator is None else self.trainer.evaluate()
        if metrics:
            self._note_gain(metrics)
            self.reporter.record("validation", 0, 0, metrics)
        self.save(None, metrics)

    def _train_epoch(self, batches: EpochIterator) -> None:
        if self.progress.validation_due:  # of the run that is resumed
            self._validate_within_epoch(batches)
        if self._ends_within_epoch():
            return
        for output in self.trainer.steps(batches):
            self.after_step(output, batches)
            if self._ends_within_epoch():
                return
            if self.progress.out_of_steps(self.settings):
                break
        self._end_epoch(batches)

    def _ends_within_epoch(self) -> bool:
        """Return whether training ends within the epoch, after a signal or a validation without gain."""
        return bool(self.stopped_by) or self.progress.stalled(self.settings)

    def after_step(self, output: StepOutput, batches: EpochIterator) -> None:
        """Maintain the codebooks, report, compare data-parallel parameters, validate and save, each at its interval."""
        trainer, step = self.trainer, self.progress.step
        trainer.interval_metrics.add(output, trainer.codebooks.after_step(step), skipped=trainer.pipeline.skipped)
        self.reporter.advance(step)
        self.profiler.after_step(step)
        if step == 1 or step % self.settings.log_every == 0:
            self._report()
        if trainer.context.world_size > 1 and step % self.settings.check_replicas_every == 0:
            check_replicas(data_parallel_state(trainer.train_state.model))
        if self.writer is not None:
            self.writer.poll()
        agreed = self.agreement.after_step(step)
        if not self.progress.out_of_steps(self.settings):  # then the end of the epoch does both
            self._validate_or_save_within_epoch(batches, agreed)

    def _report(self) -> None:
        """Report the steps since the last report: at step 1, every ``log_every`` steps, and at the last step."""
        trainer, step, epoch = self.trainer, self.progress.step, self.progress.epoch
        trainer.losses.check()
        whole = step % self.settings.log_every == 0
        metrics = trainer.interval_metrics.close(whole=whole) | learning_rates(trainer.train_state.optimizer)
        if (norm := gradient_norm(trainer.train_state.model)) is not None:
            metrics["gradient_norm"] = norm.item()
        best = {} if self.progress.best is None else {"best": self.progress.best}
        self.reporter.record("train", step, epoch, metrics, shown=best)
        if whole:
            trainer.codebooks.watch(metrics)
        self._reported = step

    def _validate_or_save_within_epoch(self, batches: EpochIterator, agreed: Decision) -> None:
        """Validate and save at their intervals of steps or minutes, and save before a stop. Collective.

        The end of an epoch does both separately. A validation that a stop prevents comes first when the run is resumed.

        Args:
            batches: The batches of the epoch.
            agreed: What the ranks agreed on.
        """
        settings, progress = self.settings, self.progress
        within = progress.batches < len(self.trainer.train_loader)
        progress.validation_due = within and (agreed.validate or is_due(progress.step, settings.validate_every_steps))
        if progress.validation_due and not agreed.stop:
            self._validate_within_epoch(batches)
            return
        save = within and (agreed.save or is_due(progress.step, settings.checkpoint.every_steps))
        if agreed.stop or save:
            self.trainer.check_and_complete_state()
            self.save(batches, {})
        self.stopped_by = agreed.stop

    def _validate_within_epoch(self, batches: EpochIterator) -> None:
        """Evaluate, which counts for early stopping, and save; a signal saves the state before it."""
        self.trainer.check_and_complete_state()
        try:
            with self.trainer.interval_metrics.paused(), self.agreement.stopping_evaluation():
                metrics = self.trainer.evaluate()
        except EvaluationStopped as stop:
            self._stop_unevaluated(batches, stop)
            return
        self.progress.validation_due = False
        self._note_gain(metrics)
        self._record_validation(batches, metrics)

    def _end_epoch(self, batches: EpochIterator) -> None:
        """Evaluate and save; report the training steps before. A signal in the validation saves the state before it."""
        try:
            with self.trainer.interval_metrics.paused():
                metrics = self._close_epoch()
        except EvaluationStopped as stop:
            self._stop_unevaluated(batches, stop)
            return
        self._record_validation(batches, metrics)

    def _close_epoch(self) -> dict[str, float]:
        """Evaluate; of an epoch cut short by ``max_steps``, only a validation that is due counts for early stopping."""
        trainer, progress = self.trainer, self.progress
        trainer.check_and_complete_state()
        metrics: dict[str, float] = {}
        if trainer.evaluator is not None:
            last = progress.out_of_steps(self.settings)  # a resumed run would not validate it again
            with nullcontext() if last else self.agreement.stopping_evaluation():
                metrics = trainer.evaluate()
        whole = progress.batches == len(trainer.train_loader)
        if metrics and (whole or is_due(progress.step, self.settings.validate_every_steps)):
            self._note_gain(metrics)
        if whole:
            progress.epoch, progress.batches = progress.epoch + 1, 0
            if codes := trainer.codebooks.close_epoch():
                self.reporter.record("codebooks", progress.step, progress.epoch, codes)
        return metrics

    def _stop_unevaluated(self, batches: EpochIterator, stop: EvaluationStopped) -> None:
        """Save the state before an evaluation that a signal ended."""
        self.save(batches, {})
        self.stopped_by = stop.number

    def _note_gain(self, metrics: dict[str, float]) -> None:
        """Count a validation for early stopping."""
        watched = self.settings.early_stopping.metric
        self.progress.note_gain(watched, metrics[watched])
        self.agreement.note_validated(self.progress.step)

    def _record_validation(self, batches: EpochIterator, metrics: dict[str, float]) -> None:
        """Record and save the metrics, after the training steps before them if these are the last."""
        if self.trainer.finished() and self.progress.step > self._reported:
            self._report()
        with self.trainer.interval_metrics.paused():
            if metrics:
                self.reporter.record("validation", self.progress.step, self.progress.epoch, metrics)
            self.save(batches, metrics)

    def save(self, batches: EpochIterator | None, metrics: dict[str, float]) -> None:
        """Write a checkpoint with the metrics of its validation, if there was one."""
        if self.writer is None:
            return
        trainer, progress = self.trainer, self.progress
        loader = batches.state_after(progress.batches) if batches is not None and progress.batches else None
        self.writer.save(trainer.train_state.state_dict(), trainer.rank_state(), trainer.describe(metrics, loader))
        self.agreement.note_saved(progress.step)

    def _stop_writing(self) -> None:
        if self.writer is not None:
            self.writer.close()


def is_due(step: int, every: int | None) -> bool:
    """Return whether a step ends an interval; False without an interval."""
    return every is not None and step % every == 0
