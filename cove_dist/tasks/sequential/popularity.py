"""The popularity baseline: items ranked by their occurrences in the training split, the same for every sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from cove_dist.config.checks import check
from cove_dist.evaluation.positions import Positions
from cove_dist.evaluation.sequential import NOTHING, ListCompletion, first_occurrences
from cove_dist.tasks.sequential.build import halves_of
from cove_dist.tasks.sequential.config import SequentialEvaluationConfig
from cove_dist.tasks.sequential.padding import Slots
from data_pipeline.schema import INPUT, TARGET, Schema
from data_pipeline.streaming.loader import build_loader
from data_pipeline.streaming.vocabulary import item_counts


class SequentialPopularity:
    """Evaluates the popularity baseline of sequential recommendation.

    The ranking is the same for every sequence, except for excluded items of its input. Items of equal frequency tie,
    and count with their expected value over all orders.

    Args:
        evaluation: Values of the section ``evaluation``.
        data, schema: Folder and schema of the prepared data.

    Raises:
        ConfigError: A value is invalid, or the data have no sequences.
    """

    def __init__(self, evaluation: Mapping[str, Any], data: str, schema: Schema) -> None:
        halves_of(schema)
        self._settings = check(SequentialEvaluationConfig, dict(evaluation))
        self._data, self._schema = data, schema
        self.protocol = self._settings.protocol(schema)

    def evaluate(self, split: str, batch_size: int) -> dict[str, float]:
        """Return the metrics of a split, read ``batch_size`` sequences at a time."""
        counts, schema, settings = torch.from_numpy(item_counts(self._data, self._schema)), self._schema, self._settings
        metrics = ListCompletion(settings.ndcg_at, settings.hit_rate_at, len(counts), schema.longest_target)
        for batch in build_loader(self._data, schema, split, batch_size):
            targets = Slots.of(batch.ids[TARGET].lengths()).pad(batch.ids[TARGET].values(), fill=NOTHING)
            seen = Slots.of(batch.ids[INPUT].lengths()).pad(batch.ids[INPUT].values(), fill=NOTHING)
            seen = seen if self.protocol.exclude_seen else seen[:, :0]
            metrics.update(popular_positions(counts, targets, seen, metrics.depth), targets)
        return {name: value.item() for name, value in metrics.compute().items()}


def popular_positions(counts: torch.Tensor, targets: torch.Tensor, seen: torch.Tensor, depth: int) -> Positions:
    """Find the positions of target items in the ranking by count, the same for all sequences except for excluded items.

    Items of equal count tie.

    Args:
        counts: Counts of all items, int64 ``[V]``.
        targets: Target items int64 ``[B, S]``, padded with `NOTHING`; ids from V on are not ranked.
        seen: Items to exclude, int64 ``[B, m]``; ids outside ``0 … V-1`` are ignored.
        depth: Largest position that matters.

    Returns:
        Positions of the distinct target items of each sequence.
    """
    lists, places = first_occurrences(targets, len(counts)).nonzero().unbind(1)
    items = targets[lists, places]
    left_out = seen.where(first_occurrences(seen, len(counts)) & (seen >= 0) & (seen < len(counts)), NOTHING)[lists]
    ranked = (items < len(counts)) & (left_out != items[:, None]).all(dim=1)
    ordered, own = counts.sort().values, counts[items.where(ranked, 0)]
    counts_left_out = counts[left_out.clamp(min=0)].where(left_out >= 0, -1)
    up_to, below = torch.searchsorted(ordered, own, right=True), torch.searchsorted(ordered, own)
    above = len(counts) - up_to - (counts_left_out > own[:, None]).sum(dim=1)
    tied = up_to - below - (counts_left_out == own[:, None]).sum(dim=1)
    return Positions(lists, above.where(ranked, depth), tied.where(ranked, 1), len(targets), depth)
