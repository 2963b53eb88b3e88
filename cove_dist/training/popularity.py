"""What the most frequent items of training score on lists: the floor under every model.

The folder has the files of an evaluated run that comparison reads: ``config.yaml``, ``metrics.json``, ``summary.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from cove_dist.composition import check, compose_yaml
from cove_dist.config import DataConfig, settings
from cove_dist.evaluation.lists import NOTHING, ListCompletion
from cove_dist.evaluation.protocol import protocol_of
from cove_dist.runs import METRICS_FILE, SUMMARY_FILE, save_config
from cove_dist.tasks.lists.build import halves_of
from cove_dist.tasks.lists.padding import Slots
from cove_dist.types import PositiveInt
from data_pipeline.json_files import write_json
from data_pipeline.schema import INPUT, TARGET, Schema
from data_pipeline.streaming.loader import build_loader
from data_pipeline.streaming.vocabulary import item_counts

# What comparison asks a run's configuration for.
_NAMED = {"model": {"_target_": "popularity.Popularity"}, "quantizer": {"user_levels": None, "item_levels": None}}


@settings
class PopularityConfig:
    data: DataConfig
    split: Literal["validation", "test"]
    ndcg_at: tuple[PositiveInt, ...]
    hit_rate_at: tuple[PositiveInt, ...]
    exclude_seen: bool | None
    batch_size: PositiveInt
    output: str | None


def evaluate_popularity(overrides: Sequence[str]) -> dict[str, Any]:
    """Rank the items of training by how often they occur, and write the metrics; returns what the file holds.

    The ranking is the same for every list, but for the items of its input where these are left out.

    Raises:
        ConfigError, DataError: a wrong setting, or data that is not of prepared lists.
    """
    composed = compose_yaml("popularity", overrides)
    values = OmegaConf.to_container(composed)
    values["data"] = {key: values["data"][key] for key in ("name", "path")}
    request = check(PopularityConfig, values)
    schema = Schema.load(request.data.path)
    halves_of(schema)
    schema.require_split(request.split)
    metrics = popularity_metrics(request, schema)
    folder = Path(request.output or f"runs/{request.data.name}_popularity")
    folder.mkdir(parents=True, exist_ok=True)
    protocol = protocol_of("lists", schema, exclude_seen=request.exclude_seen)
    record = {"split": request.split, "protocol": protocol.words, **metrics}
    write_json(folder / METRICS_FILE, record)
    write_json(folder / SUMMARY_FILE, {"samples_per_second": None})
    save_config(OmegaConf.create(OmegaConf.to_container(composed) | _NAMED), folder)
    return record


def popularity_metrics(request: PopularityConfig, schema: Schema) -> dict[str, float]:
    counts = torch.from_numpy(item_counts(request.data.path, schema))
    metrics = ListCompletion(request.ndcg_at, request.hit_rate_at, len(counts), schema.longest_target)
    ranked = torch.argsort(counts, descending=True, stable=True)
    exclude_seen = protocol_of("lists", schema, exclude_seen=request.exclude_seen).exclude_seen
    for batch in build_loader(request.data.path, schema, request.split, request.batch_size):
        targets = Slots.of(batch.ids[TARGET].lengths()).pad(batch.ids[TARGET].values(), fill=NOTHING)
        seen = Slots.of(batch.ids[INPUT].lengths()).pad(batch.ids[INPUT].values(), fill=NOTHING)
        metrics.update(most_popular(ranked, metrics.depth, seen if exclude_seen else seen[:, :0]), targets)
    return {name: value.item() for name, value in metrics.compute().items()}


def most_popular(ranked: torch.Tensor, depth: int, seen: torch.Tensor) -> torch.Tensor:
    """Return the first items of one ranking for every list, but for those that it has.

    Args:
        ranked: int64 ``[V]``, all items, best first.
        depth: items of each list.
        seen: int64 ``[B, m]``, items to leave out; ids outside ``0 … V-1`` stand for none.

    Returns:
        int64 ``[B, depth]``, `NOTHING` behind the last.
    """
    lists, width = seen.shape
    head = ranked[: depth + width]  # enough even where all that is left out is among them
    place = torch.full((len(ranked) + 1,), len(head)).index_copy(0, head, torch.arange(len(head)))
    known = seen.where((seen >= 0) & (seen < len(ranked)), len(ranked))
    left_out = torch.zeros(lists, len(head) + 1, dtype=torch.bool).scatter(1, place[known], True)[:, :-1]
    order = left_out.sort(dim=1, stable=True).indices[:, :depth]
    candidates = head[order].where(~left_out.gather(1, order), NOTHING)
    return F.pad(candidates, (0, depth - candidates.shape[1]), value=NOTHING)
