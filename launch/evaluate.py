"""Evaluate a run's checkpoint on a split, on one device or, under torchrun, on many.

Writes RUN/metrics_<split>_<checkpoint>.json.

With by_frequency=true also apart for the users, and the items, that are rare or frequent in training.

python launch/evaluate.py run=runs/movielens_deepfm
torchrun --nproc_per_node=2 launch/evaluate.py run=runs/movielens_deepfm split=test save_predictions=true
"""

from __future__ import annotations

from collections.abc import Sequence

from cove_dist.inference.evaluate import evaluate_run
from launch.cli import run
from launch.tables import show_evaluation


def main(arguments: Sequence[str] | None = None) -> None:
    run("[torchrun --nproc_per_node=N] launch/evaluate.py", __doc__, "evaluate", evaluate_and_show, arguments)


def evaluate_and_show(overrides: Sequence[str]) -> None:
    evaluated = evaluate_run(overrides)
    if evaluated is not None:
        show_evaluation(evaluated)


if __name__ == "__main__":
    main()
