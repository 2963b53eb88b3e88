"""Results as rich tables."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from cove_dist.evaluation.frequency import GROUPS, by_entity, is_grouped
from cove_dist.evaluation.metrics_files import Evaluated
from cove_dist.experiments.text import TextTable, number
from data_pipeline.preparation.report import Report

_GROUPS = "q1 to q4: quarters of the ids by their rows in training, the rarest first; never: not in training"


def rich_table(table: TextTable) -> Table:
    """Return a table of strings to print; its notes stand below."""
    columns = (Column(name, overflow="fold") for name in table.header)
    shown = Table(
        *columns, title=table.title, title_justify="left", caption="\n".join(table.notes), caption_justify="left"
    )
    for row in table.rows:
        shown.add_row(*row)
    return shown


def show_evaluation(evaluated: Evaluated) -> None:
    """Print the metrics of one evaluation, and above them what they are of."""
    console = Console()
    console.print(evaluated.words, soft_wrap=True, markup=False, highlight=False)
    console.print(metrics_table(evaluated), *frequency_tables(evaluated))


def metrics_table(evaluated: Evaluated) -> Table:
    """Return the metrics of one evaluation; of several labels a column for each."""
    metrics = {name: value for name, value in evaluated.metrics.items() if not is_grouped(name)}
    labels = evaluated.protocol.get("labels")
    if labels is None:
        table = Table("metric", "value")
        for name, value in metrics.items():
            table.add_row(name, number(value))
        return table
    table = Table("metric", *labels)
    for name in (name for name in metrics if f"{name}/{labels[0]}" in metrics):
        table.add_row(name, *(number(metrics[f"{name}/{label}"]) for label in labels))
    return table


def frequency_tables(evaluated: Evaluated) -> list[Table]:
    """Build a table per entity: metrics by the number of its occurrences in training, of several labels the first."""
    tables, label = [], evaluated.protocol.get("label")
    of_label = "" if label is None else f", label {label}"
    for entity, groups in by_entity(evaluated.metrics).items():
        table = Table(f"{entity}s by training rows{of_label}", *(Column(group, justify="right") for group in GROUPS))
        for name, values in groups.items():
            table.add_row(name, *map(number, values))
        tables.append(table)
    if tables:
        tables[-1].caption, tables[-1].caption_justify = _GROUPS, "left"
    return tables


def report_table(folder: Path) -> Table:
    """Build the table of a prepared folder's ``report.json``."""
    table = Table("prepared", str(folder))
    for label, value in Report.load(folder).summary().items():
        table.add_row(label, value)
    return table
