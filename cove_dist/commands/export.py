"""Write codes, embeddings, an index of items or the model itself, as files for other programs, with original ids.

Codes are written on one device or, under torchrun, on many.

cove export run=runs/movielens_cove_deepfm
cove export run=runs/movielens_cove_deepfm what=[embeddings,codes,model] output=exported
cove export run=runs/movielens_cove_deepfm what=[embeddings,model] precision=int8 output=exported_int8
torchrun --nproc_per_node=2 -m cove_dist export run=runs/movielens_cove_deepfm checkpoint=newest
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cove_dist.inference.export import ABOUT_FILE, export_run
from cove_dist.runs import CODES_FILE, read_json


def run(arguments: Sequence[str]) -> None:
    console = Console()
    folders = export_run(arguments)
    for folder in folders:
        if (folder / CODES_FILE).is_file():
            console.print(codes_table(folder))
        about = read_about(folder)
        if "metrics" in about and folder == folders[-1]:
            console.print(rounding_table(about))
        console.print(f"exported: {folder}", soft_wrap=True, markup=False, highlight=False)


def read_about(folder: Path) -> dict[str, Any]:
    """Return an export's ``export.json``; empty for codes, which have another file."""
    return read_json(folder / ABOUT_FILE)


def rounding_table(about: Mapping[str, Any]) -> Table:
    """Return the metrics of float32 and of rounded tables."""
    precision = about["precision"]
    table = Table("metric", "float32", precision, "change", title=f"{about['split']} split, tables in {precision}")
    for name, values in about["metrics"].items():
        shown = ("undefined" if values[key] is None else f"{values[key]:.6f}" for key in ("float32", precision))
        table.add_row(name, *shown, "undefined" if values["change"] is None else f"{values['change']:+.6f}")
    return table


def codes_table(folder: Path) -> Table:
    """Return the table of an export's ``codes.json``."""
    table = Table("entity", "ids", "unseen", "levels", "codes used")
    for entity, counted in read_json(folder / CODES_FILE)["entities"].items():
        counts = (", ".join(f"{n:,}" for n in counted[key]) for key in ("levels", "used"))
        table.add_row(entity, f"{counted['ids']:,}", f"{counted['unseen']:,}", *counts)
    return table
