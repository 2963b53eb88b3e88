"""Run a grid of models x quantizers x seeds, and write its results as Parquet, Markdown, LaTeX and pictures.

Started again, it goes on where it was: finished cells are not repeated, the one under way resumes from its checkpoint.
Tables are written after every cell, pictures at the end.

python launch/experiment.py table4_movielens
python launch/experiment.py configs/grid/table4_movielens.yaml jobs=2 seeds=[0,1] '~models.finalmlp'
python launch/experiment.py table4_movielens 'common=["data=movielens_100k","trainer.epochs=5"]' output=runs/short
python launch/experiment.py table4_movielens tables_only=true results=results/so_far
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from cove_dist.experiments.plan import file_arguments, shipped
from cove_dist.experiments.program import run_experiment
from launch.cli import run
from launch.tables import rich_table

PROGRAM = "python launch/experiment.py"
_HOW_NOT_WHAT = ("tables_only=", "jobs=", "reevaluate=", "changed=")  # arguments that do not belong to the results


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join([*PROGRAM.split(), *(a for a in arguments if not a.startswith(_HOW_NOT_WHAT))])
    action = partial(experiment, command=command)
    run(
        f"{PROGRAM} GRID",
        f"{__doc__}\nshipped: {shipped('grid')}\n",
        "experiment",
        action,
        arguments,
        adapt=partial(file_arguments, "grid"),
    )


def experiment(overrides: Sequence[str], command: str) -> None:
    outcome = run_experiment(overrides, command)
    console = Console()
    for table in outcome.tables:
        console.print(rich_table(table))
    console.print(outcome.unfinished, markup=False, highlight=False, end="")
    console.print(f"results: {outcome.folder}", soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
