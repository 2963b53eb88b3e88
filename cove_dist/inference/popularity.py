"""The popularity baseline of sequential models: items ranked by their occurrences in the training split.

The folder has the files that comparison reads: configuration, metrics and summary.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from omegaconf import OmegaConf

from cove_dist.config import DataConfig, settings
from cove_dist.config.checks import check
from cove_dist.config.composition import compose_yaml
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError
from cove_dist.evaluation.metrics_files import Evaluated
from cove_dist.faults.outputs import check_writable
from cove_dist.runs import CONFIG_FILE, SUMMARY_FILE, save_config
from cove_dist.tasks.inheritance import expand_short_forms
from cove_dist.tasks.registry import TASKS
from cove_dist.types import Cutoff, Folder, PositiveInt
from data_pipeline.fingerprint import split_fingerprint
from data_pipeline.json_files import write_json
from data_pipeline.schema import Schema

# The settings of a run's configuration that comparison reads.
_NAMED: dict[str, dict[str, str | None]] = {
    "model": {"_target_": "popularity.Popularity"},
    "quantizer": {"user_levels": None, "item_levels": None},
}


def _refuse_trained(folder: Path) -> None:
    """Refuse a folder whose configuration is that of a trained model, which it would replace."""
    path = folder / CONFIG_FILE
    there = OmegaConf.select(read_yaml(path), "model._target_") if path.is_file() else None
    if there not in (None, _NAMED["model"]["_target_"]):
        raise ConfigError(f"output = {folder}: holds a run of {there}; give another folder")


@settings
class PopularityConfig:
    data: DataConfig
    split: Literal["validation", "test"]
    ndcg_at: tuple[Cutoff, ...]
    hit_rate_at: tuple[Cutoff, ...]
    exclude_seen: bool | None
    batch_size: PositiveInt
    output: Folder | None


def evaluate_popularity(overrides: Sequence[str]) -> Evaluated:
    """Rank the items of training by their frequency, write the metrics, and return them.

    Raises:
        ConfigError, DataError: A setting is invalid, the data do not fit the task, or the folder holds a trained run.
    """
    composed = compose_yaml("popularity", expand_short_forms(overrides))
    values = plain(composed)
    values["data"] = {key: values["data"][key] for key in ("name", "path")}
    request = check(PopularityConfig, values)
    schema = Schema.load(request.data.path)
    task = next(task for task in TASKS.values() if task.has_popularity_baseline)
    evaluation = {name: values[name] for name in ("ndcg_at", "hit_rate_at", "exclude_seen")}
    baseline = task.build_popularity_baseline(evaluation, request.data.path, schema)
    schema.require_split(request.split)
    folder = Path(request.output or f"runs/{request.data.name}_popularity")
    check_writable(folder)
    _refuse_trained(folder)
    metrics = baseline.evaluate(request.split, request.batch_size)
    folder.mkdir(parents=True, exist_ok=True)
    evaluated = Evaluated(
        split=request.split,
        kind=None,
        checkpoint=None,
        step=None,
        best_by=None,
        protocol=baseline.protocol.record(),
        data=split_fingerprint(request.data.path, schema, request.split),
        metrics={**metrics},
    )
    evaluated.save(folder)
    write_json(folder / SUMMARY_FILE, {"samples_per_second": None})
    save_config(OmegaConf.create(plain(composed) | _NAMED), folder)
    return evaluated
