"""Score the most popular items on prepared lists: the floor under every model. Writes a folder that compare.py reads.

python launch/popularity.py data=aotm output=runs/aotm_popularity
"""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.inference.popularity import evaluate_popularity
from launch.cli import run
from launch.tables import show_evaluation


def main(arguments: Sequence[str] | None = None) -> None:
    run("python launch/popularity.py", __doc__, "popularity", evaluate_and_show, arguments)


def evaluate_and_show(overrides: Sequence[str]) -> None:
    show_evaluation(evaluate_popularity(overrides))


if __name__ == "__main__":
    main()
