"""Write the codes of all users and items of a run, and its codebooks, on one device or, under torchrun, on many.

python launch/export_codes.py run=runs/movielens_cove_deepfm
torchrun --nproc_per_node=2 launch/export_codes.py run=runs/movielens_cove_deepfm checkpoint=newest output=codes
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from cove_dist.inference.export import CODES_FILE, export_codes
from launch.cli import run


def main(arguments: Sequence[str] | None = None) -> None:
    run("[torchrun --nproc_per_node=N] launch/export_codes.py", __doc__, "export_codes", export_and_show, arguments)


def export_and_show(overrides: Sequence[str]) -> None:
    folder = export_codes(overrides)
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


if __name__ == "__main__":
    main()
