"""Several evaluated runs side by side, as far as their metrics mean the same."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cove_dist.checkpoints.evaluated import check_current
from cove_dist.config.evaluation import declare_metrics
from cove_dist.config.yaml_files import plain, read_yaml
from cove_dist.errors import ConfigError
from cove_dist.evaluation.declarations import is_metric
from cove_dist.evaluation.frequency import is_grouped
from cove_dist.evaluation.metrics_files import Evaluated, check_comparable, load_metrics
from cove_dist.experiments.results import SPEED
from cove_dist.experiments.text import MISSING, TextTable, mean_and_deviation_text
from cove_dist.runs import CONFIG_FILE, SUMMARY_FILE, read_history, read_json
from cove_dist.training.resume import changes_learning


@dataclass(frozen=True)
class Comparison:
    """Runs that may share a table.

    Attributes:
        split: Split that was evaluated.
        checkpoint: Kind of checkpoint that was evaluated: ``best`` or ``newest``.
        protocol: Description of the ranking protocol.
        records: One per group of runs that differ only in seed and output: model, runs, checkpoints, values by metric.
        notes: Remarks that a reader must know.
    """

    split: str
    checkpoint: str
    protocol: str
    records: list[dict[str, Any]]
    notes: list[str]

    def table(self) -> TextTable:
        """Return a column a group, so that the table fits a terminal; a row a metric."""
        rows = [
            (name, *(_over_runs(record, name) for record in self.records))
            for name in dict.fromkeys(name for record in self.records for name in record["values"])
        ]
        for key in ("checkpoint", "run folder"):
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
        group = groups.setdefault(
            key, {"model": _model_name(config), "run folders": [], "checkpoints": [], "values": {}}
        )
        group["run folders"].append(folder)
        group["checkpoints"].append(found.checkpoint or "none")
        for name, value in _metrics(Path(folder), found).items():
            group["values"].setdefault(name, []).append(value)
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


def _model_name(config: Mapping[str, Any]) -> str:
    name = config["model"]["_target_"].rsplit(".", 1)[1]
    quantized = [key for key in ("user_levels", "item_levels") if config["quantizer"][key]]
    return f"COVE-{name}" if quantized else name
