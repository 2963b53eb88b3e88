"""Evaluate a run's checkpoint on a split, on one device or, under torchrun, on many.

Writes RUN/metrics_<split>_<checkpoint>.json.

With by_frequency=true also apart for the users, and the items, that are rare or frequent in training.

cove evaluate run=runs/movielens_deepfm
torchrun --nproc_per_node=2 -m cove_dist evaluate run=runs/movielens_deepfm split=test save_predictions=true
"""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.commands.tables import show_evaluation
from cove_dist.inference.evaluate import NotSavedError, evaluate_run


def run(arguments: Sequence[str]) -> None:
    try:
        evaluated = evaluate_run(arguments)
    except NotSavedError as error:
        show_evaluation(error.evaluated)
        raise
    if evaluated is not None:
        show_evaluation(evaluated)
