"""Every claim of the paper next to what was measured: one table, made from the results of the grids.

cove paper
cove paper folder=runs/results readme=null
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.commands.tables import rich_table
from cove_dist.experiments.paper import paper_table


def run(arguments: Sequence[str]) -> None:
    Console().print(rich_table(paper_table(arguments)))
