"""Codes by the data's own categories, against a loop over the items."""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from cove_dist.errors import ConfigError
from cove_dist.tasks.category_negatives import CategoryRenewal, CategorySource, known_codes
from data_pipeline.schema import Categorical, Schema


@pytest.mark.parametrize("count", [2, 5, 100])
def test_an_item_has_the_rarest_of_its_categories_that_are_kept(interactions: Path, count: int) -> None:
    schema = Schema.load(interactions)
    seen = schema.entity("item").num_seen
    raw = json.loads((interactions.parent / "raw" / "Toys_and_Games_item2attributes.json").read_text())
    ids = {
        row["id"]: str(row["original_id"]) for row in pq.read_table(interactions / "ids/item_id.parquet").to_pylist()
    }
    of_item = {item: {str(each) for each in raw[original]} for item, original in ids.items() if item < seen}
    sizes = Counter(name for names in of_item.values() for name in names)
    kept = sorted(sizes, key=lambda name: (-sizes[name], name))[: count - 1]
    expected = [max((kept.index(n) + 1 for n in of_item[item] if n in kept), default=0) for item in range(seen)]
    assert known_codes(str(interactions), schema, count).tolist() == expected
    assert len(set(expected)) > 1


def test_titles_are_no_categories(interactions: Path, tmp_path: Path) -> None:
    schema = Schema.load(interactions)
    (tmp_path / "categories").mkdir()
    count = schema.entity("item").num_seen
    genres, titles = ["ab"[item % 2] for item in range(count)], [f"film {item}" for item in range(count)]
    table = pa.table({"id": range(count), "genre": genres, "title": titles})
    pq.write_table(table, tmp_path / "categories" / "item_id.parquet")
    assert set(known_codes(str(tmp_path), schema, 20).tolist()) == {1, 2}


def test_codes_need_no_text_for_each_item(interactions: Path, tmp_path: Path) -> None:
    schema, count = Schema.load(interactions), 20_000
    (tmp_path / "categories").mkdir()
    table = pa.table({"id": range(count), "genre": ["abc"[item % 3] for item in range(count)]})
    pq.write_table(table, tmp_path / "categories" / "item_id.parquet")
    tracemalloc.start()
    try:
        known_codes(str(tmp_path), schema, 20)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 80 * count  # a text takes 60 bytes and more


@pytest.mark.parametrize(("count", "dtype"), [(200, np.uint8), (300, np.int32)])
def test_codes_reach_the_loader_in_as_few_bytes_as_they_need(count: int, dtype: type) -> None:
    item = Categorical("item", 1000, 1000, role="item")
    schema = Schema("d", None, (item,), (), {})
    received: list[np.ndarray] = []
    source = CategorySource("random", count, level=0, seed=3, folder="")
    CategoryRenewal(source, Mock(), received.append, schema, torch.device("cpu")).start_epoch(1)
    assert received[0].dtype == dtype
    assert received[0].tolist() == np.random.default_rng([3, 2]).integers(count, size=1000).tolist()


def test_data_without_categories_is_refused(interactions: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"category_codes = data: toys has no categories .*allowed: kmeans"):
        known_codes(str(tmp_path), Schema.load(interactions), 8)
