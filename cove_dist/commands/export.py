"""Write codes, embeddings, an index of items or the model itself, as files for other programs, with original ids.

Codes are written on one device or, under torchrun, on many.

cove export run=runs/movielens_cove_deepfm
cove export run=runs/movielens_cove_deepfm what=[embeddings,codes,model] output=exported
torchrun --nproc_per_node=2 -m cove_dist export run=runs/movielens_cove_deepfm checkpoint=newest
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cove_dist.inference.artifacts import export_run
from cove_dist.inference.export import CODES_FILE


def run(arguments: Sequence[str]) -> None:
    console = Console()
    for folder in export_run(arguments):
        if (folder / CODES_FILE).is_file():
            console.print(codes_table(folder))
        console.print(f"exported: {folder}", soft_wrap=True, markup=False, highlight=False)


def codes_table(folder: Path) -> Table:
    """Return the figures of an export's ``codes.json``."""
    table = Table("entity", "ids", "unseen", "levels", "codes used")
    for entity, figures in json.loads((folder / CODES_FILE).read_text())["entities"].items():
        counts = (", ".join(f"{n:,}" for n in figures[key]) for key in ("levels", "used"))
        table.add_row(entity, f"{figures['ids']:,}", f"{figures['unseen']:,}", *counts)
    return table
