"""Checks of what a finished run is asked for."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

from cove_dist.config import RunConfig
from cove_dist.errors import ConfigError
from cove_dist.tasks.unseen import rare_ids
from data_pipeline.schema import Entity, Schema

logger = logging.getLogger(__name__)


def check_choice(what: str, value: Any, *allowed: str) -> None:
    """Refuse a value that is not among the allowed ones."""
    if value not in allowed:
        raise ConfigError(f"{what} = {value!r}: allowed: {', '.join(allowed)}")


def check_count(what: str, value: Any) -> None:
    """Refuse a value that is not a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ConfigError(f"{what} = {value!r}: allowed: whole numbers from 1")


def listed_items(k: int, schema: Schema, entity: Entity = "item") -> int:
    """Return the length of the longest list: only items (or users) of the training split are listed."""
    if k > (count := schema.entity(entity).num_seen):
        logger.warning("k = %d: the training split has %d %ss, so lists are shorter", k, count, entity)
    return min(int(k), count)


def check_oov_row(config: RunConfig, schema: Schema, entity: Entity, others: str) -> None:
    """Refuse ``unknown=oov_row`` for a run whose out-of-vocabulary rows mean nothing.

    Args:
        config: Configuration of the run.
        schema: Schema of its data.
        entity: Whose ids are unseen.
        others: The other values of ``unknown``, for the message.

    Raises:
        ConfigError: The run has ``embeddings.id_dropout=0``, and its rows of unseen ids are neither codes nor trained
            by rare ids.
    """
    of_codes = config.embeddings.unseen == "codes" and entity in config.quantizer.levels()
    if config.embeddings.id_dropout == 0 and not of_codes and not rare_ids(config.data.path, schema.entity(entity)):
        raise ConfigError(
            f"unknown = oov_row: the run was trained with embeddings.id_dropout=0, and has neither codes for unseen"
            f" {entity}s nor {entity}s rarer than data.min_count, so its out-of-vocabulary rows are random; allowed:"
            f" {others}, or a run that was trained with"
            f" embeddings.id_dropout=0.05, or with embeddings.unseen=codes and a quantizer of {entity}s"
        )
