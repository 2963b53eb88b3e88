"""Write the best k items of a run for users, as Parquet with original ids, on one device or, under torchrun, on many.

cove recommend run=runs/toys_bprmf
torchrun --nproc_per_node=2 -m cove_dist recommend run=runs/toys_lightgcn users=users.csv k=20 output=lists
cove recommend run=runs/toys_bprmf users=[17,23] faiss=true
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.inference.recommend import recommend


def run(arguments: Sequence[str]) -> None:
    folder = recommend(arguments)
    if folder is not None:
        Console().print(f"recommendations: {folder}", soft_wrap=True, markup=False, highlight=False)
