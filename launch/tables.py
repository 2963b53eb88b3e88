"""Results as rich tables."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Column, Table

from cove_dist.evaluation.declarations import is_metric
from cove_dist.evaluation.frequency import GROUPS, by_entity, is_grouped
from cove_dist.experiments.results import SPEED, existing, run_figures
from cove_dist.experiments.text import MISSING, TextTable, mean_and_deviation_text, number
from cove_dist.runs import CONFIG_FILE
from data_pipeline.json_files import write_json
from data_pipeline.preparation.report import Report


def rich_table(table: TextTable) -> Table:
    shown = Table(*(Column(name, overflow="fold") for name in table.header), title=table.title, title_justify="left")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def metrics_table(record: Mapping[str, Any]) -> Table:
    """A metrics file's numbers; its title says what they are of: split, checkpoint, protocol."""
    words = [value for value in record.values() if isinstance(value, str)]
    table = Table("metric", "value", title="; ".join(words), title_justify="left")
    for name, value in record.items():
        if not is_grouped(name) and not isinstance(value, str):
            table.add_row(name, number(value))
    return table


def frequency_tables(metrics: Mapping[str, float | None]) -> list[Table]:
    """A table an entity of the metrics by how often it occurs in training."""
    tables = []
    for entity, figures in by_entity(metrics).items():
        table = Table(f"{entity}s by training rows", *(Column(group, justify="right") for group in GROUPS))
        for name, values in figures.items():
            table.add_row(name, *map(number, values))
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
        config = OmegaConf.to_container(OmegaConf.load(existing(folder / CONFIG_FILE)))
        same = json.dumps({k: v for k, v in config.items() if k not in ("seed", "output")}, sort_keys=True)
        group = groups.setdefault(same, {"model": _model_name(config), "runs": [], "figures": {}})
        group["runs"].append(str(folder))
        for name, value in run_figures(folder).items():
            if (is_metric(name) or name == SPEED) and not is_grouped(name):
                group["figures"].setdefault(name, []).append(value)
    return list(groups.values())


def comparison_table(folders: Sequence[str]) -> Table:
    """A column a model, so that the table fits a terminal; a row a metric."""
    records = comparison(folders)
    table = Table("metric", *(Column(record["model"], overflow="fold") for record in records))
    for name in dict.fromkeys(name for record in records for name in record["figures"]):
        table.add_row(name, *(_over_runs(record, name) for record in records))
    table.add_section()
    table.add_row("run folder", *("\n".join(record["runs"]) for record in records))
    return table


def write_comparison(folders: Sequence[str], path: str) -> None:
    write_json(Path(path), comparison(folders))


def _over_runs(record: Mapping[str, Any], metric: str) -> str:
    """A figure that some run of the group lacks is missing: its mean would be of other runs than the rest."""
    values = record["figures"].get(metric, [])
    return mean_and_deviation_text(values) if len(values) == len(record["runs"]) else MISSING


def _model_name(config: Mapping[str, Any]) -> str:
    name = config["model"]["_target_"].rsplit(".", 1)[1]
    quantized = [key for key in ("user_levels", "item_levels") if config["quantizer"][key]]
    return f"COVE-{name}" if quantized else name
