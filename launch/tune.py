"""Search hyper-parameters with Optuna for every pair of a model and a quantizer, each with the same number of trials.

Started again, it goes on where it was. OUTPUT/best.yaml holds what was found; a grid file takes it as `tuned`.

python launch/tune.py tune_movielens
python launch/tune.py configs/search/tune_movielens.yaml trials=40 jobs=2 '~models.finalmlp'
python launch/experiment.py table4_movielens tuned=runs/tune_movielens/best.yaml
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from cove_dist.experiments.plan import file_arguments, shipped
from cove_dist.experiments.tuning import BEST_FILE, run_search
from launch.cli import run
from launch.tables import rich_table

PROGRAM = "python launch/tune.py"


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    command = shlex.join([*PROGRAM.split(), *arguments])
    action = partial(search, command=command)
    run(
        f"{PROGRAM} SEARCH",
        f"{__doc__}\nshipped: {shipped('search')}\n",
        "tune",
        action,
        arguments,
        adapt=partial(file_arguments, "search"),
    )


def search(overrides: Sequence[str], command: str) -> None:
    folder, table = run_search(overrides, command)
    console = Console()
    console.print(rich_table(table))
    if (folder / BEST_FILE).is_file():
        console.print(f"best overrides: {folder / BEST_FILE}", soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
