"""A metric of one's own, from the scores of a run: expected calibration error.

python examples/own_metric.py runs/mine ratings.csv uid iid stars 4
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

import cove_dist as cove


def calibration_error(labels: np.ndarray, scores: np.ndarray, bins: int = 10) -> float:
    """Return the mean distance of the click rate from the mean score, over bins of scores weighted by their rows."""
    which = np.minimum((scores * bins).astype(int), bins - 1)
    rows, clicks, expected = (
        np.bincount(which, weights=w, minlength=bins) for w in (np.ones_like(scores), labels, scores)
    )
    return float(np.abs(clicks - expected).sum() / rows.sum())


def main(run: cove.Run, rows: pa.Table, user: str, item: str, rating: str, threshold: float) -> float:
    """Score the rows whose ids training saw, and compute the metric."""
    scored = run.predict(rows, user=user, item=item, unknown="skip")
    labels = (scored[rating].to_numpy() >= threshold).astype(np.float64)
    error = calibration_error(labels, scored["score"].to_numpy().astype(np.float64))
    print(f"expected calibration error over {len(scored)} rows: {error:.4f}")
    return error


if __name__ == "__main__":
    folder, file, user, item, rating, threshold = sys.argv[1:]
    main(cove.load(folder), csv.read_csv(file), user, item, rating, float(threshold))
