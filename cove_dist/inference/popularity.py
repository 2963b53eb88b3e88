"""The popularity baseline of sequential models: items ranked by their occurrences in the training split.

The folder has the files that comparison reads: configuration, metrics and summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from omegaconf import OmegaConf

from cove_dist.config import DataConfig, settings
from cove_dist.config.composition import check, compose_yaml
from cove_dist.config.yaml_files import plain
from cove_dist.evaluation.positions import Positions
from cove_dist.evaluation.sequential import NOTHING, ListCompletion, first_occurrences
from cove_dist.metrics_files import Evaluated
from cove_dist.runs import SUMMARY_FILE, save_config
from cove_dist.tasks.sequential.build import halves_of
from cove_dist.tasks.sequential.config import SequentialEvaluationConfig
from cove_dist.tasks.sequential.padding import Slots
from cove_dist.types import PositiveInt, Text
from data_pipeline.fingerprint import split_fingerprint
from data_pipeline.json_files import write_json
from data_pipeline.schema import INPUT, TARGET, Schema
from data_pipeline.streaming.loader import build_loader
from data_pipeline.streaming.vocabulary import item_counts

# The settings of a run's configuration that comparison reads.
_NAMED = {"model": {"_target_": "popularity.Popularity"}, "quantizer": {"user_levels": None, "item_levels": None}}


@settings
class PopularityConfig:
    data: DataConfig
    split: Literal["validation", "test"]
    ndcg_at: tuple[PositiveInt, ...]
    hit_rate_at: tuple[PositiveInt, ...]
    exclude_seen: bool | None
    batch_size: PositiveInt
    output: Text | None

    @property
    def evaluation(self) -> SequentialEvaluationConfig:
        """The evaluation settings, as in a run of the sequential task."""
        return SequentialEvaluationConfig(self.ndcg_at, self.hit_rate_at, self.exclude_seen)


def evaluate_popularity(overrides: Sequence[str]) -> Evaluated:
    """Rank the items of training by their frequency, write the metrics, and return them.

    The ranking is the same for every sequence, except for excluded items of its input. Items of equal frequency tie,
    and count with their expected value over all orders.

    Raises:
        ConfigError, DataError: A setting is invalid, or the data have no sequences.
    """
    composed = compose_yaml("popularity", overrides)
    values = plain(composed)
    values["data"] = {key: values["data"][key] for key in ("name", "path")}
    request = check(PopularityConfig, values)
    schema = Schema.load(request.data.path)
    halves_of(schema)
    schema.require_split(request.split)
    metrics = popularity_metrics(request, schema)
    folder = Path(request.output or f"runs/{request.data.name}_popularity")
    folder.mkdir(parents=True, exist_ok=True)
    evaluated = Evaluated(
        split=request.split,
        kind=None,
        checkpoint=None,
        step=None,
        best_by=None,
        protocol=request.evaluation.protocol(schema).record(),
        data=split_fingerprint(request.data.path, schema, request.split),
        metrics={**metrics},
    )
    evaluated.save(folder)
    write_json(folder / SUMMARY_FILE, {"samples_per_second": None})
    save_config(OmegaConf.create(plain(composed) | _NAMED), folder)
    return evaluated


def popularity_metrics(request: PopularityConfig, schema: Schema) -> dict[str, float]:
    counts = torch.from_numpy(item_counts(request.data.path, schema))
    metrics = ListCompletion(request.ndcg_at, request.hit_rate_at, len(counts), schema.longest_target)
    exclude_seen = request.evaluation.protocol(schema).exclude_seen
    for batch in build_loader(request.data.path, schema, request.split, request.batch_size):
        targets = Slots.of(batch.ids[TARGET].lengths()).pad(batch.ids[TARGET].values(), fill=NOTHING)
        seen = Slots.of(batch.ids[INPUT].lengths()).pad(batch.ids[INPUT].values(), fill=NOTHING)
        seen = seen if exclude_seen else seen[:, :0]
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
