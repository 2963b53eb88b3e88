"""Several evaluated runs side by side, as far as their metrics mean the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cove_dist.checkpoints.evaluated import check_current
from cove_dist.config.evaluation import declare_metrics
from cove_dist.config.overrides import flat
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import is_metric
from cove_dist.evaluation.frequency import is_grouped
from cove_dist.evaluation.metrics_files import Evaluated, check_comparable, load_metrics
from cove_dist.experiments.results import SPEED
from cove_dist.experiments.text import MISSING, TextTable, mean_and_deviation_text
from cove_dist.runs import CONFIG_FILE, SUMMARY_FILE, model_name, read_history, read_json
from cove_dist.training.resume import changes_learning
from data_pipeline.json_files import to_json

_NO_SEED = "none"  # of what is not trained, such as popularity


@dataclass(frozen=True)
class Comparison:
    """Runs that may share a table.

    Attributes:
        split: Split that was evaluated.
        checkpoint: Kind of checkpoint that was evaluated: ``best`` or ``newest``.
        protocol: Description of the ranking protocol.
        records: One per group of runs that differ only in seed and output: model, seeds, runs, checkpoints, values by
            metric, and the settings in which the groups differ.
        notes: Remarks that a reader must know.
    """

    split: str
    checkpoint: str
    protocol: str
    records: list[dict[str, Any]]
    notes: list[str]

    def table(self) -> TextTable:
        """Return a column a group, so that the table fits a terminal; a row a metric and a setting that differs."""
        rows = [
            (name, *(_over_runs(record, name) for record in self.records))
            for name in dict.fromkeys(name for record in self.records for name in record["values"])
        ]
        for key in dict.fromkeys(key for record in self.records for key in record["settings"]):
            rows.append((key, *(_setting(record["settings"], key) for record in self.records)))
        for key in ("seed", "checkpoint", "run folder"):
            rows.append((key, *("\n".join(record[f"{key}s"]) for record in self.records)))
        header = ("metric", *(record["model"] for record in self.records))
        title = f"{self.split} split, {self.checkpoint} checkpoints; {self.protocol}"
        return TextTable(title, header, tuple(rows), tuple(self.notes))


def compare_runs(folders: Sequence[str], split: str, checkpoint: str) -> Comparison:
    """Read the metrics of runs and put them side by side.

    Raises:
        ConfigError: A run is not trained, not evaluated so, or was trained further since; or their metrics mean
            different things.
    """
    evaluated = {folder: load_metrics(Path(folder), split, checkpoint) for folder in folders}
    configs = {folder: plain(read_yaml(existing(Path(folder) / CONFIG_FILE))) for folder in folders}
    refused = {folder: declare_metrics(config) for folder, config in configs.items()}
    for folder, found in evaluated.items():
        check_current(Path(folder), found)
    notes = check_comparable(evaluated)
    groups: dict[str, dict[str, Any]] = {}
    for folder, found in evaluated.items():
        config = configs[folder]
        notes += _left_out(folder, found, refused[folder])
        changed = _changes(Path(folder))
        notes += [f"{folder} changed during training: {change}." for change in changed]
        same = {key: value for key, value in config.items() if key not in ("seed", "output")}
        key = json.dumps([same, changed], sort_keys=True)
        group = groups.setdefault(key, _empty_group(model_name(config), flat(same)))
        group["seeds"].append(str(config.get("seed", _NO_SEED)))
        group["run folders"].append(folder)
        group["checkpoints"].append(found.checkpoint or "none")
        for name, value in _metrics(Path(folder), found).items():
            group["values"].setdefault(name, []).append(value)
    notes += [note for group in groups.values() for note in _repeated_seeds(group)]
    _keep_differences([group["settings"] for group in groups.values()])
    protocol = next(found.protocol["words"] for found in evaluated.values())
    return Comparison(split, checkpoint, protocol, list(groups.values()), notes)


def existing(path: Path) -> Path:
    """Return the path of a file that training writes.

    Raises:
        ConfigError: It is not there.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; train it first: {path.parent}")
    return path


def _left_out(folder: str, evaluated: Evaluated, refused: Sequence[str]) -> list[str]:
    """Return a note on the metrics whose names and directions are not known, with the reasons."""
    if not (unknown := evaluated.unknown()):
        return []
    reasons = "; ".join(refused) or "no class in its configuration declares them now"
    return [f"{folder}: left out {', '.join(unknown)}, which are not known: {reasons}."]


def _metrics(folder: Path, evaluated: Evaluated) -> dict[str, float]:
    shown = {n: v for n, v in evaluated.defined().items() if is_metric(n) and not is_grouped(n)}
    speed = read_json(existing(folder / SUMMARY_FILE))["samples_per_second"]
    return shown if speed is None else shown | {SPEED: speed}


def _changes(folder: Path) -> list[str]:
    """Return the settings that a resumed run changed and that change what it learns."""
    records = [r for r in read_history(folder) if changes_learning(r["key"])]
    return [f"{r['key']} {r['old']} -> {r['new']} at step {r['step']}" for r in records]


def _over_runs(record: Mapping[str, Any], metric: str) -> str:
    """Return a metric's values; none if a run of the group lacks it, as its mean would be over other runs."""
    values = record["values"].get(metric, [])
    return mean_and_deviation_text(values) if len(values) == len(record["run folders"]) else MISSING


def _empty_group(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    lists: dict[str, list[str]] = {"seeds": [], "run folders": [], "checkpoints": []}
    return {"model": model, **lists, "values": {}, "settings": settings}


def _repeated_seeds(group: Mapping[str, Any]) -> list[str]:
    """Return a note for every seed of which a group has several runs: their deviation is not one over seeds."""
    runs: dict[str, list[str]] = {}
    for seed, folder in zip(group["seeds"], group["run folders"], strict=True):
        runs.setdefault(seed, []).append(folder)
    return [
        f"{' and '.join(folders)} have the same settings and seed {seed}: the deviation is not over seeds alone."
        for seed, folders in runs.items()
        if len(folders) > 1 and seed != _NO_SEED
    ]


def _setting(settings: Mapping[str, Any], key: str) -> str:
    """Return a setting's value; a dash if the run's model or loss has no such setting."""
    value = settings.get(key, "-")
    return value if isinstance(value, str) else to_json(value)


def _keep_differences(settings: Sequence[dict[str, Any]]) -> None:
    """Remove what all groups have in common, and the model's class, which their headings name.

    Sections that one of them lacks, such as the trainer's of a baseline that is not trained, are removed too.
    """
    shared = set.intersection(*({key.partition(".")[0] for key in of_group} for of_group in settings))
    for key in dict.fromkeys(key for of_group in settings for key in of_group):
        values = {to_json(of_group[key]) if key in of_group else "" for of_group in settings}
        if key.partition(".")[0] not in shared or key == "model._target_" or len(values) == 1:
            for of_group in settings:
                of_group.pop(key, None)
