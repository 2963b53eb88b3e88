"""Pictures of a run, and one page that opens without a network: RUN/report/*.png and RUN/report/report.html.

python launch/report.py run=runs/movielens_cove_deepfm
python launch/report.py run=runs/movielens_cove_deepfm output=pictures shuffles=100
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.report.program import report_run
from launch.cli import run


def main(arguments: Sequence[str] | None = None) -> None:
    run("python launch/report.py", __doc__, "report", report_and_show, arguments)


def report_and_show(overrides: Sequence[str]) -> None:
    Console().print(f"report: {report_run(overrides)}", soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
