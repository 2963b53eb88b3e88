"""Synthetic data have the planted categories, and their rows depend only on the seed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from data_pipeline.datasets.synthetic import Population, Synthetic
from data_pipeline.errors import DataError
from data_pipeline.preparation.prepare import prepare
from tests.unit.data.prepare_helpers import read_decoded


def table(seed: int = 0, **settings) -> pa.Table:
    dataset = Synthetic(**{"users": 300, "items": 200, "rows": 5_000} | settings)
    return pa.Table.from_batches(dataset.chunks(seed))


@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 2**32))
def test_rows_do_not_depend_on_the_chunk_size(a, b, seed):
    assert table(seed, chunk_rows=a, rows=300) == table(seed, chunk_rows=b, rows=300)


def test_more_rows_only_add_rows():
    assert table(rows=1_000).equals(table(rows=3_000).slice(0, 1_000).combine_chunks())


def test_another_seed_gives_other_categories():
    assert table(seed=0)["label"].to_pylist() != table(seed=1)["label"].to_pylist()


def test_ids_labels_and_times_are_in_range():
    rows = table().to_pydict()
    assert min(rows["user"]) >= 0 and max(rows["user"]) < 300
    assert min(rows["item"]) >= 0 and max(rows["item"]) < 200
    assert set(rows["label"]) == {0, 1}
    assert rows["time"] != sorted(rows["time"])  # a log is not quite in order of time


def test_popularity_has_the_requested_skew():
    flat, skewed = (
        np.sort(np.bincount(table(item_skew=skew, rows=40_000)["item"].to_numpy(), minlength=200))[::-1]
        for skew in (0.0, 1.0)
    )
    assert flat[0] < 2 * flat.mean()
    positions = np.arange(1, 201)
    expected = np.log((positions + 1) / positions) / np.log(201)  # of the density 1 / x on [1, 201)
    assert np.abs(skewed / skewed.sum() - np.sort(expected)[::-1]).max() < 0.01


def test_popular_ids_are_not_neighbors():
    counts = np.bincount(table(item_skew=1.0)["item"].to_numpy(), minlength=200)
    assert np.abs(np.diff(np.argsort(-counts)[:20])).mean() > 20


def categories(dataset: Synthetic, rows: pa.Table, level: int) -> np.ndarray:
    """Return the pair of the user's and the item's category at ``level`` as one number, ``[n]``."""
    planted = dataset.planted(0)
    user, item = (
        planted[f"{side}_id"][f"category_{level}"].to_numpy()[rows[side].to_numpy()] for side in ("user", "item")
    )
    return user * (1 + item.max()) + item


def auc_of(pair: np.ndarray, label: np.ndarray) -> float:
    """Return the AUC of predicting a row by the share of positives in the other half of its category pair's rows."""
    half = np.arange(len(label)) % 2 == 0
    total = np.bincount(pair[half], minlength=pair.max() + 1)
    positive = np.bincount(pair[half], weights=label[half], minlength=pair.max() + 1)
    return roc_auc_score(label[~half], ((positive + 1) / (total + 2))[pair[~half]])


def test_labels_follow_the_categories_of_every_level():
    dataset = Synthetic(users=300, items=200, rows=60_000, user_tree=(12, 3), item_tree=(12, 3), noise=0.1)
    rows = pa.Table.from_batches(dataset.chunks(0))
    label = rows["label"].to_numpy()
    fine, coarse = (auc_of(categories(dataset, rows, level), label) for level in (1, 2))
    shuffled = auc_of(np.random.default_rng(0).permutation(categories(dataset, rows, 1)), label)
    assert fine > 0.9 and 0.6 < coarse < fine and abs(shuffled - 0.5) < 0.02


def test_every_level_contributes_to_the_hidden_vectors():
    """Two levels: ids of one fine category share both parts, ids of one coarse category share half, others nothing."""
    population = Population(2_000, (200, 20), skew=0.0, random=np.random.default_rng(0))
    planted = population.table()
    vectors = population.hidden(np.arange(2_000))
    likeness = vectors @ vectors.T / vectors.shape[1]
    fine, coarse = (np.equal.outer(c, c) for c in (planted["category_1"].to_numpy(), planted["category_2"].to_numpy()))
    means = [likeness[pairs].mean() for pairs in (fine, coarse & ~fine, ~coarse)]
    assert means == pytest.approx([1.0, 0.5, 0.0], abs=0.1)


def test_labels_are_certain_only_without_noise():
    areas = {}
    for noise in (0.0, 0.5, 5.0):
        dataset = Synthetic(users=300, items=200, rows=30_000, noise=noise)
        rows = pa.Table.from_batches(dataset.chunks(0))
        pair, label = categories(dataset, rows, 1), rows["label"].to_numpy()
        areas[noise] = auc_of(pair, label)
        if noise == 0:
            for chosen in np.unique(pair):
                assert len(set(label[pair == chosen])) == 1
    assert areas[0.0] > areas[0.5] > areas[5.0]


@pytest.mark.parametrize("tree", [(20, 4), (7, 3, 2), (5,)])
def test_planted_categories_nest_and_are_even(tree):
    planted = Synthetic(users=2_000, items=50, rows=1, user_tree=tree).planted(0)["user_id"]
    levels = [planted[f"category_{level}"].to_numpy() for level in range(1, len(tree) + 1)]
    assert [set(level) for level in levels] == [set(range(count)) for count in tree]
    for fine, coarse in pairwise(levels):
        parents = {child: set(coarse[fine == child]) for child in set(fine)}
        assert all(len(parent) == 1 for parent in parents.values())
        children = np.bincount([parent.pop() for parent in parents.values()])
        assert children.max() - children.min() <= 1


def test_preparation_keeps_the_rows_and_the_planted_categories(tmp_path):
    dataset = Synthetic(users=60, items=3_000, rows=4_000, chunk_rows=700)
    schema = prepare(dataset, tmp_path / "out", name="synthetic", seed=5)
    raw = table(seed=5, users=60, items=3_000, rows=4_000).to_pydict()
    read = [
        (row["user_id"], row["item_id"], row["label"])
        for rows in read_decoded(tmp_path / "out").values()
        for row in rows
    ]
    assert sorted(read) == sorted(zip(raw["user"], raw["item"], map(float, raw["label"]), strict=True))
    truth = {column: categories.to_pylist() for column, categories in dataset.planted(5).items()}
    for column in ("user_id", "item_id"):
        planted = pq.read_table(tmp_path / "out/categories" / f"{column}.parquet").to_pylist()
        ids = pq.read_table(tmp_path / "out/ids" / f"{column}.parquet")["original_id"].to_pylist()
        assert planted == [{"id": place} | truth[column][original] for place, original in enumerate(ids)]
    assert schema.entity("item").num_seen < schema.entity("item").num_ids < 3_000


@pytest.mark.parametrize("tree", [(), (4, 20), (4, 4)])
def test_a_tree_whose_levels_do_not_decrease_is_refused(tree):
    with pytest.raises(DataError, match=r"data\.item_tree = .*: sizes must decrease from fine to coarse"):
        Synthetic(users=5, items=5, rows=5, item_tree=tree)
