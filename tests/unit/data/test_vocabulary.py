"""The items that are added to every batch of sequences."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_pipeline.schema import Categorical, Schema
from data_pipeline.streaming.loader import build_loader
from data_pipeline.streaming.vocabulary import (
    VOCABULARY,
    VocabularyBlock,
    VocabularySample,
    item_counts,
    sampling_probabilities,
    vocabulary_block,
)
from tests.unit.data.prepare_helpers import read_split
from tests.unit.data.stream_fixtures import interactions, write_folder


@pytest.mark.parametrize(("seen", "ranks"), [(10, 1), (10, 3), (11, 4), (2, 4), (8, 3)])
def test_blocks_of_all_ranks_are_the_items_of_training_once(seen: int, ranks: int) -> None:
    item = Categorical("input", seen + 5, seen, "item", sequence=True)
    blocks = [range(*vocabulary_block(item, rank, ranks)) for rank in range(ranks)]
    assert [i for block in blocks for i in block] == list(range(seen))
    size = -(-item.num_rows // ranks)  # where a table cut row-wise has the block's rows
    assert all(i // size == rank for rank, block in enumerate(blocks) for i in block)


def test_a_block_is_divided_among_the_rows_of_every_batch(prepared_lists: Path) -> None:
    schema = Schema.load(prepared_lists)
    item = schema.entity("item")
    block = list(range(*vocabulary_block(item, 1, 2)))
    for batch in build_loader(prepared_lists, schema, "train", 50, transforms=[VocabularyBlock(item, 1, 2)]):
        lists = [ids.tolist() for ids in batch.ids[VOCABULARY].to_dense()]
        assert [item for items in lists for item in items] == block
        sizes = [len(items) for items in lists[: len(batch)]]
        assert max(sizes) - min(sizes) <= 1


def test_counts_are_those_of_training_sequences(prepared_lists: Path) -> None:
    schema = Schema.load(prepared_lists)
    rows = read_split(prepared_lists, "train")
    items = [item for row in rows for item in row["input"] + row["target"]]
    assert item_counts(prepared_lists, schema).tolist() == np.bincount(items).tolist()


def test_shares_of_ranks_are_counted_once_in_time_and_memory_of_their_ids(tmp_path: Path) -> None:
    table = interactions(1000, 40)
    schema = write_folder(tmp_path, {"train": table}, group_rows=(64, 10))
    columns = (replace(c, num_ids=1_000_000, num_seen=1_000_000) for c in schema.categorical if c.name != "user")
    schema = replace(schema, categorical=(schema.entity("user"), *columns))
    items = np.array([item for items in table["history"].to_pylist() for item in items])
    tracemalloc.start()
    try:
        shares = [item_counts(tmp_path, schema, rank, 3) for rank in range(3)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3.5 * shares[0].nbytes  # no further counts for a part of the rows
    assert 0 < shares[0].sum() < len(items)
    assert sum(shares).tolist() == np.bincount(items, minlength=1_000_000).tolist()


def test_samples_follow_the_probabilities_and_the_seed(prepared_lists: Path) -> None:
    schema = Schema.load(prepared_lists)
    item = schema.entity("item")
    probabilities = sampling_probabilities(item_counts(prepared_lists, schema), 0.75)
    assert probabilities.sum() == pytest.approx(1)
    sample = VocabularySample(item, 5000, probabilities)

    def drawn(seed: int) -> np.ndarray:
        loader = build_loader(prepared_lists, schema, "train", 64, seed=seed, transforms=[sample])
        return np.stack([batch.ids[VOCABULARY].values().numpy() for batch in loader])

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
    shares = np.bincount(first.ravel(), minlength=item.num_seen) / first.size
    assert np.abs(shares - probabilities).max() < 5 * np.sqrt(probabilities.max() / first.size)


def test_with_power_zero_all_items_are_equally_likely() -> None:
    assert sampling_probabilities(np.array([1, 50, 0]), 0.0).tolist() == pytest.approx([1 / 3] * 3)
