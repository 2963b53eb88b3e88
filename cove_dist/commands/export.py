"""Write the codes of all users and items of a run, and its codebooks, on one device or, under torchrun, on many.

cove export run=runs/movielens_cove_deepfm
torchrun --nproc_per_node=2 -m cove_dist export run=runs/movielens_cove_deepfm checkpoint=newest output=codes
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cove_dist.inference.export import CODES_FILE, export_codes


def run(arguments: Sequence[str]) -> None:
    folder = export_codes(arguments)
    if folder is not None:
        console = Console()
        console.print(codes_table(folder))
        console.print(f"codes: {folder}", soft_wrap=True, markup=False, highlight=False)


def codes_table(folder: Path) -> Table:
    """The figures of an export's ``codes.json``."""
    table = Table("entity", "ids", "unseen", "levels", "codes used")
    for entity, figures in json.loads((folder / CODES_FILE).read_text())["entities"].items():
        counts = (", ".join(f"{n:,}" for n in figures[key]) for key in ("levels", "used"))
        table.add_row(entity, f"{figures['ids']:,}", f"{figures['unseen']:,}", *counts)
    return table
