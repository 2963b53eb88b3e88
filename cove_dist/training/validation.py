"""Validation and saving within an epoch, at their intervals of steps and minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cove_dist.faults.agreement import Decision, EvaluationStopped
from cove_dist.faults.finite import check_state
from data_pipeline.streaming.loader import EpochIterator

if TYPE_CHECKING:
    from cove_dist.training.trainer import Trainer


def validate_or_save_within_epoch(trainer: Trainer, batches: EpochIterator, agreed: Decision) -> None:
    """Validate and save at their intervals of steps or minutes after a step, and save before a stop. Collective.

    The end of an epoch does both separately. A validation that a stop prevents comes first when the run is resumed.

    Args:
        trainer: The trainer, after the step.
        batches: The batches of the epoch.
        agreed: What the ranks agreed on.
    """
    settings, progress = trainer.config.trainer, trainer.progress
    if progress.out_of_steps(settings):
        return
    within = progress.batches < len(trainer.train_loader)
    progress.validation_due = within and (agreed.validate or is_due(progress.step, settings.validate_every_steps))
    if progress.validation_due and not agreed.stop:
        validate_within_epoch(trainer, batches)
        return
    save = within and (agreed.save or is_due(progress.step, settings.checkpoint.every_steps))
    if agreed.stop or save:
        check_and_complete_state(trainer)
        trainer.save(batches, {})
    trainer.stopped_by = agreed.stop


def validate_within_epoch(trainer: Trainer, batches: EpochIterator) -> None:
    """Evaluate the validation split, which counts for early stopping, and save; a signal saves the state before it."""
    check_and_complete_state(trainer)
    try:
        with trainer.interval_metrics.paused(), trainer.agreement.stopping_evaluation():
            metrics = trainer.evaluate()
    except EvaluationStopped as stop:
        trainer.save(batches, {})
        trainer.stopped_by = stop.number
        return
    trainer.progress.validation_due = False
    trainer.note_gain(metrics)
    trainer.record_validation(batches, metrics)


def check_and_complete_state(trainer: Trainer) -> None:
    """Check that losses and state are finite, then set the rows of unseen ids (``embeddings.unseen``). Collective."""
    trainer.losses.check()
    check_state(trainer.train_state.state_dict(), trainer.progress.step)
    if trainer.config.embeddings.unseen == "codes":
        trainer.codebooks.set_unseen_rows(trainer.train_state.model.module.tables, trainer.schema)


def is_due(step: int, every: int | None) -> bool:
    """Return whether a step ends an interval; False without an interval."""
    return every is not None and step % every == 0
