"""What the most frequent items of training score on lists: the floor under every model.

The folder has the files of an evaluated run that comparison reads: ``config.yaml``, ``metrics.json``, ``summary.json``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from omegaconf import OmegaConf

from cove_dist.composition import check, compose_yaml
from cove_dist.config import DataConfig, settings
from cove_dist.evaluation.lists import NOTHING, ListCompletion
from cove_dist.runs import METRICS_FILE, SUMMARY_FILE, save_config
from cove_dist.tasks.lists.build import halves_of
from cove_dist.tasks.lists.padding import Slots
from cove_dist.types import PositiveInt
from data_pipeline.json_files import write_json
from data_pipeline.schema import TARGET, Schema
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
    batch_size: PositiveInt
    output: str | None


def evaluate_popularity(overrides: Sequence[str]) -> dict[str, float]:
    """Rank the items of training by how often they occur, the same for every list, and write the metrics.

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
    write_json(folder / METRICS_FILE, {"split": request.split, **metrics})
    write_json(folder / SUMMARY_FILE, {"samples_per_second": None})
    save_config(OmegaConf.create(OmegaConf.to_container(composed) | _NAMED), folder)
    return metrics


def popularity_metrics(request: PopularityConfig, schema: Schema) -> dict[str, float]:
    counts = torch.from_numpy(item_counts(request.data.path, schema))
    metrics = ListCompletion(request.ndcg_at, request.hit_rate_at, len(counts), schema.longest_target)
    top = torch.argsort(counts, descending=True, stable=True)[: metrics.depth]
    candidates = torch.full((metrics.depth,), NOTHING).index_copy(0, torch.arange(len(top)), top)
    for batch in build_loader(request.data.path, schema, request.split, request.batch_size):
        targets = Slots.of(batch.ids[TARGET].lengths()).pad(batch.ids[TARGET].values(), fill=NOTHING)
        metrics.update(candidates.expand(len(targets), -1), targets)
    return {name: value.item() for name, value in metrics.compute().items()}
