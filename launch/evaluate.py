"""Evaluate a run's best checkpoint on a split, on one device or, under torchrun, on many; writes RUN/metrics.json.

With by_frequency=true also apart for the users, and the items, that are rare or frequent in training.

python launch/evaluate.py run=runs/movielens_deepfm
torchrun --nproc_per_node=2 launch/evaluate.py run=runs/movielens_deepfm split=test save_predictions=true
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.training.program import evaluate_run
from launch.cli import run
from launch.tables import frequency_tables, metrics_table


def main(arguments: Sequence[str] | None = None) -> None:
    run("[torchrun --nproc_per_node=N] launch/evaluate.py", __doc__, "evaluate", evaluate_and_show, arguments)


def evaluate_and_show(overrides: Sequence[str]) -> None:
    metrics = evaluate_run(overrides)
    if metrics is not None:
        Console().print(metrics_table(metrics), *frequency_tables(metrics))


if __name__ == "__main__":
    main()
