"""Write a tuple of tokens for every id from exported codes, for models that generate ids, and report collisions.

cove export run=runs/toys_residual
cove semantic_ids run=runs/toys_residual
cove semantic_ids run=runs/toys_residual entity=user disambiguate=false output=user_ids
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cove_dist.inference.semantic_ids import write_semantic_ids


def run(arguments: Sequence[str]) -> None:
    folder, found = write_semantic_ids(arguments)
    names = ("ids", "distinct code tuples", "ids with a unique tuple", "ids of the commonest tuple", "codes in use")
    table = Table(*names, title="tuples of codes, without the token that makes them unique")
    counts = (f"{found.ids:,}", f"{found.tuples:,}", f"{found.unique_share:.2%}", f"{found.largest_bucket:,}")
    table.add_row(*counts, ", ".join(f"{n:,}" for n in found.levels))
    console = Console()
    console.print(table)
    console.print(f"semantic ids: {folder}", soft_wrap=True, markup=False, highlight=False)
