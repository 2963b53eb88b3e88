"""Clusters of items compared with plain counts, and on sequences with planted groups."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import adjusted_rand_score

from data_pipeline.errors import DataError
from data_pipeline.item_clusters import (
    ClusterSettings,
    shifted_information,
    skip_gram_vectors,
    training_sequences,
    write_item_clusters,
)
from data_pipeline.schema import INPUT, TARGET, Categorical, Schema, Split

ITEMS, GROUPS = 40, 4


def settings(folder: Path, **others: int) -> ClusterSettings:
    return ClusterSettings(str(folder), **({"clusters": GROUPS, "dim": GROUPS, "negatives": 1} | others))


def planted(lists: int, seed: int, groups: int = GROUPS) -> list[list[int]]:
    """Make sequences, each of items of one group: those that are equal modulo ``groups``."""
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(ITEMS // groups, size=rng.integers(4, 9)) * groups + rng.integers(groups)).tolist()
        for _ in range(lists)
    ]


def prepared(folder: Path, validation_groups: int = GROUPS) -> Path:
    splits = {"train": planted(300, seed=0), "validation": planted(300, seed=1, groups=validation_groups)}
    kind = pa.list_(pa.int64())
    for split, lists in splits.items():
        (folder / split).mkdir(parents=True)
        halves = {
            INPUT: pa.array([items[: len(items) // 2] for items in lists], kind),
            TARGET: pa.array([items[len(items) // 2 :] for items in lists], kind),
        }
        pq.write_table(pa.table(halves), folder / split / "part.parquet", row_group_size=70)
    columns = [
        Categorical(name, ITEMS + 2, ITEMS, "item", sequence=True, table="item_id", max_length=9)
        for name in (INPUT, TARGET)
    ]
    files = {split: Split(len(lists), (f"{split}/part.parquet",)) for split, lists in splits.items()}
    Schema("lists", None, tuple(columns), (), files).save(folder)
    (folder / "ids").mkdir()
    ids = range(ITEMS + 2)
    table = pa.table({"id": pa.array(ids, pa.int64()), "original_id": [f"song {i}" for i in ids]})
    pq.write_table(table, folder / "ids" / "item_id.parquet")
    return folder


def test_planted_groups_are_found_and_written_as_categories(tmp_path: Path) -> None:
    path, sizes = write_item_clusters(settings(prepared(tmp_path)))
    assert sizes == [ITEMS // GROUPS] * GROUPS
    assert path == tmp_path / "categories" / "item_id.parquet"
    table = pq.read_table(path)
    assert table["original_id"].to_pylist() == [f"song {i}" for i in range(ITEMS)]
    assert adjusted_rand_score(np.arange(ITEMS) % GROUPS, table["neighbourhood"].to_numpy()) == 1


def test_sequences_outside_training_change_nothing(tmp_path: Path) -> None:
    one, other = (write_item_clusters(settings(prepared(tmp_path / str(n), n)))[0] for n in (4, 5))
    assert pq.read_table(one) == pq.read_table(other)


def test_other_categories_are_kept(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    (folder / "categories").mkdir()
    genres = pa.table({"id": [3, 41], "original_id": ["song 3", "song 41"], "genre": ["rock", "jazz"]})
    pq.write_table(genres, folder / "categories" / "item_id.parquet")
    for _ in range(2):
        table = pq.read_table(write_item_clusters(settings(folder))[0])
    assert sorted(table.column_names) == ["genre", "id", "neighbourhood", "original_id"]
    assert table["id"].to_pylist() == list(range(ITEMS + 2))
    assert table["genre"].to_pylist() == ["rock" if i == 3 else "jazz" if i == 41 else None for i in range(ITEMS + 2)]
    assert table["neighbourhood"].null_count == 2


def test_information_and_vectors_equal_plain_counts(tmp_path: Path) -> None:
    values, offsets = training_sequences(prepared(tmp_path), Schema.load(tmp_path))
    lists = [values[start:stop].tolist() for start, stop in pairwise(offsets)]
    assert sorted(lists) == sorted(planted(300, seed=0))
    window, negatives = 2, 3
    pairs: dict[tuple[int, int], int] = {}
    for items in lists:
        for i, left in enumerate(items):
            for j, right in enumerate(items):
                if i != j and abs(i - j) <= window:
                    pairs[left, right] = pairs.get((left, right), 0) + 1
    total = sum(pairs.values())
    single = [sum(count for (left, _), count in pairs.items() if left == item) for item in range(ITEMS)]
    expected = np.zeros((ITEMS, ITEMS))
    for (left, right), count in pairs.items():
        expected[left, right] = max(math.log(count * total / (single[left] * single[right])) - math.log(negatives), 0)
    found = shifted_information(values, offsets, ITEMS, window, negatives).toarray()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    vectors = skip_gram_vectors(values, offsets, ITEMS, settings(tmp_path, dim=5, window=window, negatives=negatives))
    left, singular, _ = np.linalg.svd(expected)
    best = left[:, :5] * singular[:5] @ left[:, :5].T
    np.testing.assert_allclose(vectors @ vectors.T, best, atol=1e-8)


@pytest.mark.parametrize("key", ["clusters", "dim"])
def test_too_few_items_are_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(DataError, match=rf"{key} = 40: must be less than the 40 items in training"):
        write_item_clusters(settings(prepared(tmp_path), **{key: 40}))


def test_data_without_sequences_are_refused(tmp_path: Path) -> None:
    Schema("x", "label", (Categorical("item_id", 3, 3, "item"),), (), {}).save(tmp_path)
    with pytest.raises(DataError, match=r"its rows are not sequences with input and target; .* of lists: none"):
        write_item_clusters(settings(tmp_path))
