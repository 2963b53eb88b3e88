"""Pictures of a run, and one page that opens without a network: RUN/report/*.png and RUN/report/report.html.

cove report run=runs/movielens_cove_deepfm
cove report run=runs/movielens_cove_deepfm output=pictures shuffles=100
cove report runs=[runs/movielens_deepfm,runs/movielens_cove_deepfm] output=runs/both
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from cove_dist.experiments.text import number
from cove_dist.report.agreement import Agreement
from cove_dist.report.examples import CodeExample
from cove_dist.report.program import report_run


def run(arguments: Sequence[str]) -> None:
    found, console = report_run(arguments), Console()
    if found.examples:
        console.print(_examples(found.examples))
    if found.agreement:
        console.print(_agreement(found.agreement))
    console.print(f"report: {found.page}", soft_wrap=True, markup=False, highlight=False)


def _examples(examples: Sequence[CodeExample]) -> Table:
    """Return the largest codes with three of their ids each."""
    table = Table("learned code", "ids", "most common category", "some of the ids", title="learned categories")
    for each in examples:
        code = f"{each.entity}, level {each.level}: {each.code}"
        table.add_row(code, f"{each.size:,}", each.category or "-", "; ".join(each.ids[:3]))
    return table


def _agreement(agreement: Sequence[Agreement]) -> Table:
    """Return how far the codes of each level follow known categories, next to shuffled codes."""
    rows = [one.row() for one in agreement]
    shown = ("entity", "level", "category column", "area under the curves", "area, codes shuffled")
    table = Table(*shown, title="codes against categories that training never saw (1: one code covers each category)")
    for row in rows:
        table.add_row(*(number(v) if isinstance(v := row[name], float) else str(v) for name in shown))
    return table
