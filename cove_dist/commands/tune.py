"""Search hyper-parameters with Optuna for every pair of a model and a quantizer, each with the same number of trials.

Started again, it goes on where it was. OUTPUT/best.yaml holds what was found; a grid file takes it as `tuned`.

cove tune tune_movielens
cove tune configs/search/tune_movielens.yaml trials=40 jobs=2 '~models.finalmlp'
cove experiment table4_movielens tuned=runs/tune_movielens/best.yaml
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.commands.tables import rich_table
from cove_dist.commands.written import written_command
from cove_dist.experiments.common import file_arguments
from cove_dist.experiments.tuning import BEST_FILE, run_search


def overrides(arguments: Sequence[str]) -> list[str]:
    """Turn the search file among the arguments into Hydra overrides."""
    return file_arguments("search", arguments)


def run(arguments: Sequence[str]) -> None:
    folder, table = run_search(overrides(arguments), written_command("tune", arguments))
    console = Console()
    console.print(rich_table(table))
    if (folder / BEST_FILE).is_file():
        console.print(f"best overrides: {folder / BEST_FILE}", soft_wrap=True, markup=False, highlight=False)
