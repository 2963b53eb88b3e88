from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.streaming.partition import Partition, epoch_order, partition_rows, partition_users, row_seed, slices

counts = st.integers(1, 5)
batch_sizes = st.integers(1, 70)
group_rows = st.lists(st.integers(0, 50), min_size=1, max_size=12)
user_sizes = st.lists(st.one_of(st.integers(1, 6), st.integers(1, 500)), min_size=1, max_size=60)


def batch_sizes_of(partition: Partition, shard: int) -> np.ndarray:
    return np.diff([partition.batch_start(shard, step) for step in range(partition.steps + 1)])


def check_batches(partition: Partition, rows: int) -> None:
    """Every row is in exactly one batch, no batch is empty, and weighted local means average to the global mean."""
    shards = partition.world_size * partition.workers
    assert partition.cuts[0] == 0 and partition.cuts[-1] == rows and len(partition.cuts) == shards + 1
    values = np.random.default_rng(0).normal(size=rows)
    sizes = np.array([batch_sizes_of(partition, shard) for shard in range(shards)])  # [shards, steps]
    assert sizes.shape == (shards, partition.steps)
    assert sizes.min() >= 1
    np.testing.assert_array_equal(sizes.sum(axis=1), np.diff(partition.cuts))
    for worker in range(partition.workers):
        for step in range(partition.steps):
            weighted, rows_seen = [], []
            for rank in range(partition.world_size):
                shard = rank * partition.workers + worker
                start = partition.cuts[shard] + partition.batch_start(shard, step)
                local = values[start : start + sizes[shard, step]]
                weighted.append(partition.weight(rank, worker, step) * local.mean())
                rows_seen.append(local)
            np.testing.assert_allclose(np.mean(weighted), np.concatenate(rows_seen).mean(), rtol=1e-9, atol=1e-12)


@given(group_rows, st.randoms(use_true_random=False), counts, counts, batch_sizes)
def test_every_row_is_read_exactly_once(group_rows, random, world_size, workers, batch_size):
    group_rows = np.array(group_rows)
    order = np.array(random.sample(range(len(group_rows)), len(group_rows)))
    rows = int(group_rows.sum())
    if rows < world_size * workers:
        with pytest.raises(DataError, match="too few"):
            partition_rows(rows, batch_size, world_size, workers)
        return
    partition = partition_rows(rows, batch_size, world_size, workers)
    read = [
        (part.group, row)
        for first, last in pairwise(partition.cuts.tolist())
        for part in slices(group_rows, order, first, last)
        for row in range(part.start, part.stop)
    ]
    assert read == [(group, row) for group in order for row in range(group_rows[group])]


@settings(deadline=None)
@given(st.integers(1, 3_000), counts, counts, batch_sizes)
def test_equal_shards_make_equal_steps_of_nearly_equal_batches(rows, world_size, workers, batch_size):
    shards = world_size * workers
    rows = max(rows, shards)
    partition = partition_rows(rows, batch_size, world_size, workers)
    check_batches(partition, rows)
    sizes = np.diff(partition.cuts)
    assert sizes.max() - sizes.min() <= 1
    batches = np.concatenate([batch_sizes_of(partition, shard) for shard in range(shards)])
    assert batches.max() - batches.min() <= 1
    if batch_size == 1 and sizes.max() != sizes.min():
        assert batches.max() == 2
    else:
        assert batches.max() <= batch_size
        assert partition.steps == -(-sizes.max() // batch_size)


@settings(deadline=None)
@given(user_sizes, counts, counts, batch_sizes)
def test_shards_keep_users_whole(user_sizes, world_size, workers, batch_size):
    ends = np.cumsum(user_sizes)
    if len(ends) < world_size * workers:
        with pytest.raises(DataError, match=f"{len(ends)} users.*fewer ranks"):
            partition_users(ends, batch_size, world_size, workers)
        return
    partition = partition_users(ends, batch_size, world_size, workers)
    check_batches(partition, int(ends[-1]))
    assert set(partition.cuts[1:]) <= set(ends)
    assert np.diff(partition.cuts).min() >= 1
    assert partition.steps == min(-(-partition.sizes.max() // batch_size), partition.sizes.min())


def test_users_of_equal_size_are_shared_out_evenly():
    partition = partition_users(np.arange(1, 101) * 7, batch_size=16, world_size=8)
    assert sorted(partition.sizes) == [12 * 7] * 4 + [13 * 7] * 4
    assert partition.steps == 6  # ceil(91 / 16)


def test_one_huge_user_leaves_the_others_to_the_remaining_shards():
    # Cuts at multiples of N/K would all fall inside the first user and leave two shards empty.
    partition = partition_users(np.cumsum([9_000, *[10] * 30]), batch_size=100, world_size=4)
    np.testing.assert_array_equal(partition.sizes, [9_000, 100, 100, 100])
    assert partition.steps == 90


def test_shard_with_fewer_rows_than_steps_makes_the_batches_of_others_grow(caplog):
    partition = partition_users(np.cumsum([1_000_000, 1, 2]), batch_size=4096, world_size=2)
    np.testing.assert_array_equal(partition.sizes, [1_000_000, 3])
    assert partition.steps == 3
    np.testing.assert_array_equal(batch_sizes_of(partition, 1), [1, 1, 1])
    assert batch_sizes_of(partition, 0).max() == 333_334
    assert "batches of up to 333334 rows instead of 4096" in caplog.text


def test_fitting_batches_warn_of_nothing(caplog):
    partition_users(np.arange(1, 101), batch_size=8, world_size=3)
    assert not caplog.records


def test_too_few_rows_name_split_ranks_and_workers():
    with pytest.raises(DataError, match=r"validation: 7 rows, too few for 4 ranks x 2 data workers = 8 shards"):
        partition_rows(7, 16, 4, 2, split="validation")


def test_epoch_order_is_a_permutation_drawn_from_seed_and_epoch():
    order = epoch_order(50, seed=3, epoch=2)
    assert sorted(order) == list(range(50))
    np.testing.assert_array_equal(order, epoch_order(50, seed=3, epoch=2))
    assert not np.array_equal(order, epoch_order(50, seed=3, epoch=3))
    assert not np.array_equal(order, epoch_order(50, seed=4, epoch=2))


def test_row_seeds_of_all_blocks_differ():
    seeds = {row_seed(s, e, k, b) for s in range(3) for e in range(5) for k in range(5) for b in range(5)}
    assert len(seeds) == 3 * 5 * 5 * 5
