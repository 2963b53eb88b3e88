"""Results as rich tables."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Column, Table

from cove_dist.errors import ConfigError
from cove_dist.evaluation.frequency import GROUPS, by_entity, is_grouped
from cove_dist.training.program import CONFIG_FILE, METRICS_FILE, SUMMARY_FILE
from data_pipeline.preparation.report import Report

_HIDDEN = ("auc_error", "users", "samples", "split", "checkpoint")


def metrics_table(metrics: Mapping[str, float | None]) -> Table:
    table = Table("metric", "value")
    for name, value in metrics.items():
        if not is_grouped(name):
            table.add_row(name, _number(value))
    return table


def frequency_tables(metrics: Mapping[str, float | None]) -> list[Table]:
    """A table an entity of the metrics by how often it occurs in training."""
    tables = []
    for entity, figures in by_entity(metrics).items():
        table = Table(f"{entity}s by training rows", *(Column(group, justify="right") for group in GROUPS))
        for name, values in figures.items():
            table.add_row(name, *map(_number, values))
        tables.append(table)
    return tables


def report_table(folder: Path) -> Table:
    """The figures of a prepared folder's ``report.json``."""
    table = Table("prepared", str(folder))
    for label, value in Report.load(folder).summary().items():
        table.add_row(label, value)
    return table


def comparison(folders: Sequence[str]) -> list[dict[str, Any]]:
    """One record a group of runs that differ only in seed and output: name, folders, and lists of figures by metric."""
    groups: dict[str, dict[str, Any]] = {}
    for folder in map(Path, folders):
        config = OmegaConf.to_container(OmegaConf.load(_existing(folder / CONFIG_FILE)))
        figures = json.loads(_existing(folder / METRICS_FILE).read_text())
        figures["samples/s"] = json.loads(_existing(folder / SUMMARY_FILE).read_text())["samples_per_second"]
        same = json.dumps({k: v for k, v in config.items() if k not in ("seed", "output")}, sort_keys=True)
        group = groups.setdefault(same, {"model": _model_name(config), "runs": [], "figures": {}})
        group["runs"].append(str(folder))
        for name, value in figures.items():
            if name not in _HIDDEN and not is_grouped(name):
                group["figures"].setdefault(name, []).append(value)
    return list(groups.values())


def comparison_table(folders: Sequence[str]) -> Table:
    """A column a model, so that the table fits a terminal; a row a metric."""
    records = comparison(folders)
    table = Table("metric", *(Column(record["model"], overflow="fold") for record in records))
    for name in records[0]["figures"]:
        table.add_row(name, *(_mean_and_deviation(record["figures"].get(name, [None])) for record in records))
    table.add_section()
    table.add_row("run folder", *("\n".join(record["runs"]) for record in records))
    return table


def write_comparison(folders: Sequence[str], path: str) -> None:
    Path(path).write_text(json.dumps(comparison(folders), indent=2) + "\n")


def _model_name(config: Mapping[str, Any]) -> str:
    name = config["model"]["_target_"].rsplit(".", 1)[1]
    quantized = [key for key in ("user_levels", "item_levels") if config["quantizer"][key]]
    return f"COVE-{name}" if quantized else name


def _mean_and_deviation(values: Sequence[float | None]) -> str:
    if any(value is None for value in values):
        return "-"
    mean = statistics.mean(values)
    if len(values) == 1:
        return _number(mean)
    digits = 0 if mean >= 1000 else 4
    return f"{mean:,.{digits}f} ± {statistics.stdev(values):,.{digits}f}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if isinstance(value, int):
        return f"{value:,}"
    if 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"


def _existing(path: Path) -> Path:
    if not path.is_file():
        hint = "evaluate it first: python launch/evaluate.py run=" if path.name == METRICS_FILE else "train it first: "
        raise ConfigError(f"{path}: no such file; {hint}{path.parent}")
    return path
