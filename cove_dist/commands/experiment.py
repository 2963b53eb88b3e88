"""Run a grid of models x quantizers x seeds, and write its results as Parquet, Markdown, LaTeX and pictures.

A restarted experiment continues: finished cells are not repeated, and the interrupted one resumes from its checkpoint.
Tables are written after every cell, pictures at the end.

cove experiment table4_movielens
cove experiment configs/grid/table4_movielens.yaml jobs=2 seeds=[0,1] '~models.finalmlp'
cove experiment table4_movielens 'common=["data=movielens_100k","trainer.epochs=5"]' output=runs/short
cove experiment table4_movielens tables_only=true results=results/so_far
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.commands.tables import rich_table
from cove_dist.commands.written import written_command
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.program import run_experiment

# arguments that do not belong to the results
_HOW_NOT_WHAT = ("tables_only=", "jobs=", "reevaluate=", "changed=", "restore=")


def overrides(arguments: Sequence[str]) -> list[str]:
    """Turn the grid file among the arguments into Hydra overrides."""
    return file_arguments("grid", arguments)


def run(arguments: Sequence[str]) -> None:
    command = written_command("experiment", (a for a in arguments if not a.startswith(_HOW_NOT_WHAT)))
    outcome = run_experiment(overrides(arguments), command)
    console = Console()
    for table in outcome.tables:
        console.print(rich_table(table))
    console.print(outcome.unfinished, markup=False, highlight=False, end="")
    console.print(f"results: {outcome.folder}", soft_wrap=True, markup=False, highlight=False)
