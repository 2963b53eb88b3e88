"""Evaluations as tables: of several labels every metric once, with a column for each label."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from cove_dist.commands.tables import frequency_tables, metrics_table
from cove_dist.evaluation.frequency import GROUPS
from cove_dist.evaluation.metrics_files import Evaluated

AUC = {"like": 0.75, "click": 0.5}
GROUPED = {f"auc/item_{group}": 0.125 * place for place, group in enumerate(GROUPS)}


def evaluated(metrics: dict[str, float], **protocol: Any) -> Evaluated:
    return Evaluated("test", "best", "step_1", 1, "auc", {"words": "", **protocol}, "data", metrics)


def lines(*tables: Any) -> list[list[str]]:
    console = Console(width=120)
    with console.capture() as captured:
        console.print(*tables)
    return [
        [cell.strip() for cell in line.strip("│┃ ").replace("┃", "│").split("│")]
        for line in captured.get().splitlines()
    ]


def test_labels_are_columns() -> None:
    of_labels = {f"auc/{label}": value for label, value in AUC.items()}
    shown = evaluated({"auc": 0.75, **of_labels, **GROUPED}, label="like", labels=["like", "click"])
    table = lines(metrics_table(shown))
    assert ["metric", "like", "click"] in table and ["auc", "0.7500", "0.5000"] in table
    assert sum(row[0].startswith("auc") for row in table) == 1
    [groups] = frequency_tables(shown)
    assert ["items by training rows, label like", *GROUPS] in lines(groups)
    assert ["auc", *(f"{value:.4f}" for value in GROUPED.values())] in lines(groups)
    assert "q1 to q4: quarters of the ids by their rows in training" in " ".join(str(groups.caption).split())


def test_without_labels_there_is_one_column() -> None:
    shown = evaluated({"auc": 0.75, **GROUPED})
    assert ["auc", "0.7500"] in lines(metrics_table(shown))
    assert ["items by training rows", *GROUPS] in lines(*frequency_tables(shown))
