"""Evaluate a recommendation of the most popular items: a baseline for every model. ``cove compare`` reads its folder.

cove popularity data=aotm output=runs/aotm_popularity
"""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.commands.tables import show_evaluation
from cove_dist.inference.popularity import evaluate_popularity


def run(arguments: Sequence[str]) -> None:
    show_evaluation(evaluate_popularity(arguments))
