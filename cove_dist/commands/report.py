"""Pictures of a run, and one page that opens without a network: RUN/report/*.png and RUN/report/report.html.

cove report run=runs/movielens_cove_deepfm
cove report run=runs/movielens_cove_deepfm output=pictures shuffles=100
cove report runs=[runs/movielens_deepfm,runs/movielens_cove_deepfm] output=runs/both
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.report.program import report_run


def run(arguments: Sequence[str]) -> None:
    Console().print(f"report: {report_run(arguments)}", soft_wrap=True, markup=False, highlight=False)
