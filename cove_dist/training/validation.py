"""Validation and saving within an epoch, at their intervals of steps and minutes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cove_dist.faults.agreement import Decision, EvaluationStopped
from cove_dist.faults.finite import check_state
from data_pipeline.streaming.loader import EpochIterator

if TYPE_CHECKING:
    from cove_dist.training.trainer import Trainer


def within_epoch(training: Trainer, batches: EpochIterator, agreed: Decision) -> None:
    """Validate and save at their intervals of steps or minutes after a step, and save before a stop. Collective.

    The end of an epoch does both separately. A validation that a stop prevents comes first when the run is resumed.

    Args:
        training: The trainer, after the step.
        batches: The batches of the epoch.
        agreed: What the ranks agreed on.
    """
    settings, position = training.config.trainer, training.position
    if position.out_of_steps(settings):
        return
    within = position.batches < len(training.train_loader)
    position.validation_due = within and (agreed.validate or is_due(position.step, settings.validate_every_steps))
    if position.validation_due and not agreed.stop:
        validate_within_epoch(training, batches)
        return
    save = within and (agreed.save or is_due(position.step, settings.checkpoint.every_steps))
    if agreed.stop or save:
        settle(training)
        training.save(batches, {})
    training.stopped_by = agreed.stop


def validate_within_epoch(training: Trainer, batches: EpochIterator) -> None:
    """Evaluate the validation split, which counts for early stopping, and save; a signal saves the state before it."""
    settle(training)
    try:
        with training.window.paused(), training.agreement.stopping_evaluation():
            metrics = training.evaluate()
    except EvaluationStopped as stop:
        training.save(batches, {})
        training.stopped_by = stop.number
        return
    training.position.validation_due = False
    training.note_gain(metrics)
    training.record_validation(batches, metrics)


def settle(training: Trainer) -> None:
    """Refuse to evaluate or save a state that is not finite, and set the rows of unseen ids. Collective."""
    training.losses.check()
    check_state(training.trainable.state_dict(), training.position.step)
    if training.config.embeddings.unseen == "codes":
        training.codebooks.set_unseen_rows(training.trainable.model.module.tables, training.schema)


def is_due(step: int, every: int | None) -> bool:
    """Return whether a step ends an interval; False without an interval."""
    return every is not None and step % every == 0
