"""Score new rows: of a click-through rate model the probability of a click, of others the score that they rank by.

Writes the rows with a further column, score; of several labels (ctr.label) also with score_<label> for each. Values of
features that training did not see have the out-of-vocabulary row, as in an evaluation, and are counted.

cove predict run=runs/mine rows=tomorrow.csv user=uid item=iid unknown=skip
cove predict run=runs/mine rows=tomorrow.csv output=scores.csv
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from cove_dist.inference.predict import predict


def run(arguments: Sequence[str]) -> None:
    path, written, left_out = predict(list(arguments))
    console = Console()
    console.print(f"scored {written:,} rows, left out {left_out:,}", highlight=False)
    console.print(f"scores: {path}", soft_wrap=True, markup=False, highlight=False)
