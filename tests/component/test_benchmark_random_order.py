"""benchmarks/random_order.py, compared with the formula for one positive among n rows."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.random_order import measure


def test_metrics_of_a_random_order_and_the_shares_of_seen_items(tmp_path: Path) -> None:
    sizes = {0: 10, 1: 20}  # rows of a request, the first of which is the positive
    rows = [{"request_id": r, "item_id": i, "label": float(i == 0)} for r, n in sizes.items() for i in range(n)]
    for split, table in {"train": [{"item_id": 1}, {"item_id": 2}], "test": rows}.items():
        (tmp_path / split).mkdir()
        pq.write_table(pa.Table.from_pylist(table), tmp_path / split / "part-00000.parquet")
    found = measure(tmp_path, "test", "request_id", at=(5,))
    gains = sum(1 / math.log2(position + 1) for position in range(1, 6))
    assert found["hr@5"] == pytest.approx((5 / 10 + 5 / 20) / 2)
    assert found["ndcg@5"] == pytest.approx((gains / 10 + gains / 20) / 2)
    assert found["mean_auc"] == pytest.approx(0.5)
    assert (found["seen_rows"], found["seen_positives"]) == (pytest.approx(4 / 30), 0.0)
