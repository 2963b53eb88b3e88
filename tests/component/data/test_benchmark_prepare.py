"""The raw rows of the benchmark of preparation, and what preparation keeps of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from benchmarks import prepare as benchmark
from data_pipeline.datasets.custom import Custom
from data_pipeline.preparation.prepare import prepare


def core_of(pairs: set[tuple[int, int]], least: int) -> set[tuple[int, int]]:
    """Leave out users and items with fewer pairs until none has fewer."""
    while True:
        users, items = (Counter(pair[end] for pair in pairs) for end in (0, 1))
        kept = {(user, item) for user, item in pairs if users[user] >= least and items[item] >= least}
        if kept == pairs:
            return kept
        pairs = kept


def test_the_core_of_the_benchmark_is_that_of_a_plain_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "PART", 1500)
    benchmark.write_raw(tmp_path / "raw", 4000, heavy=0.1)
    raw = pq.read_table(tmp_path / "raw").to_pydict()
    assert sorted(raw["time"]) == list(range(4000))
    assert np.mean(np.array(raw["user"]) == 0) == pytest.approx(0.1, abs=0.03)
    data = Custom(
        source=str(tmp_path / "raw"),
        user="user",
        item="item",
        time="time",
        split="leave_one_out",
        core=benchmark.CORE,
        candidates=0,
    )
    schema = prepare(data, tmp_path / "out", name="benchmark")
    core = core_of(set(zip(raw["user"], raw["item"], strict=True)), benchmark.CORE)
    users = {user for user, _ in core}
    assert sum(split.rows for split in schema.splits.values()) == len(core)
    assert schema.splits["test"].rows == schema.splits["validation"].rows == len(users)
