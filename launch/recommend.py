"""Write the best k items of a run for users, as Parquet with original ids, on one device or, under torchrun, on many.

python launch/recommend.py run=runs/toys_bprmf
torchrun --nproc_per_node=2 launch/recommend.py run=runs/toys_lightgcn users=users.csv k=20 output=lists
python launch/recommend.py run=runs/toys_bprmf users=[17,23] faiss=true
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.inference.recommend import recommend
from launch.cli import run


def main(arguments: Sequence[str] | None = None) -> None:
    run("[torchrun --nproc_per_node=N] launch/recommend.py", __doc__, "recommend", recommend_and_show, arguments)


def recommend_and_show(overrides: Sequence[str]) -> None:
    folder = recommend(overrides)
    if folder is not None:
        Console().print(f"recommendations: {folder}", soft_wrap=True, markup=False, highlight=False)


if __name__ == "__main__":
    main()
