import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.streaming.blocks import ranges
from data_pipeline.streaming.order import epoch_order, row_seed, slices
from data_pipeline.streaming.partition import LANES, Partition, block_cuts, partition_rows, partition_users

counts = st.integers(1, 5)
batch_sizes = st.integers(1, 70)
group_rows = st.lists(st.integers(0, 50), min_size=1, max_size=12)
user_sizes = st.lists(st.one_of(st.integers(1, 6), st.integers(1, 500)), min_size=1, max_size=60)


def batch_sizes_of(partition: Partition, rank: int) -> np.ndarray:
    return np.array([position.rows for position in partition.positions(rank, 0, partition.steps)])


def check_batches(partition: Partition, rows: int) -> None:
    """Every row is in exactly one batch, no batch is empty, and weighted local means average to the global mean."""
    world_size, steps = partition.world_size, partition.steps
    assert partition.cuts[0] == 0 and partition.cuts[-1] == rows
    values = np.random.default_rng(0).normal(size=rows)
    positions = [partition.positions(rank, 0, steps) for rank in range(world_size)]
    assert [len(of_rank) for of_rank in positions] == [steps] * world_size
    at = 0
    for step in zip(*positions, strict=True):
        weighted, first = [], at
        for batch in step:
            assert batch.rows >= 1
            assert batch.first_row == at or not partition.even or partition.lanes != LANES
            weighted.append(batch.weight * values[at : at + batch.rows].mean())
            at += batch.rows
        assert {batch.largest for batch in step} == {max(batch.rows for batch in step)}
        np.testing.assert_allclose(np.mean(weighted), values[first:at].mean(), rtol=1e-9, atol=1e-12)
    assert at == rows
    read = np.concatenate([rows_of(partition, rank) for rank in range(world_size)])
    np.testing.assert_array_equal(np.sort(read), np.arange(rows))


def rows_of(partition: Partition, rank: int) -> np.ndarray:
    """Return the rows of a rank by its shares of parts of the epoch."""
    found = []
    for first in range(0, partition.steps, 3):
        share = partition.share(rank, first, min(first + 3, partition.steps))
        lanes = partition.cuts[share.first : share.last]
        assert (share.end <= partition.sizes[share.first : share.last]).all()
        found.append(ranges((lanes + share.begin + share.starts).ravel(), share.counts.ravel()))
    return np.concatenate(found)


@given(group_rows, st.randoms(use_true_random=False), st.integers(0, 700), st.integers(0, 700))
def test_slices_are_the_rows_of_the_sequence(group_rows, random, first, last):
    group_rows = np.array(group_rows)
    order = np.array(random.sample(range(len(group_rows)), len(group_rows)))
    starts = np.cumsum(group_rows) - group_rows
    sequence = np.concatenate([np.arange(starts[group], starts[group] + group_rows[group]) for group in order])
    parts = slices(group_rows, order, min(first, len(sequence)), min(last, len(sequence)))
    read = [np.arange(starts[part.group] + part.start, starts[part.group] + part.stop) for part in parts]
    np.testing.assert_array_equal(np.concatenate([np.empty(0, int), *read]), sequence[first:last])


@given(st.integers(1, 3_000), st.integers(1, 20), batch_sizes, st.booleans())
def test_batches_are_of_nearly_equal_size(rows, world_size, batch_size, shuffle):
    rows = max(rows, world_size)
    partition = partition_rows(rows, batch_size, world_size, shuffle=shuffle)
    assert partition.lanes == (LANES if shuffle else world_size)
    check_batches(partition, rows)
    sizes = np.array([batch_sizes_of(partition, rank) for rank in range(world_size)])  # [W, S]
    assert (np.ptp(sizes, axis=0) <= 1).all()
    assert np.ptp(sizes.sum(axis=0)) <= 1
    if batch_size > 1 or rows % world_size == 0:
        assert sizes.max() <= batch_size
        assert partition.steps == -(-rows // (batch_size * world_size))


@given(st.integers(20, 3_000), batch_sizes, st.sampled_from([2, 4, 8, 16]))
def test_ranks_that_divide_the_lanes_read_whole_lanes(rows, batch_size, world_size):
    partition = partition_rows(rows, batch_size, world_size, shuffle=True)
    each = LANES // world_size
    for rank in range(world_size):
        share = partition.share(rank, 0, partition.steps)
        assert rank * each <= share.first and share.last <= (rank + 1) * each
        np.testing.assert_array_equal(share.counts.sum(axis=0), share.end - share.begin)


@given(user_sizes, counts, batch_sizes)
def test_lanes_keep_users_whole(user_sizes, world_size, batch_size):
    ends = np.cumsum(user_sizes)
    if len(ends) < world_size:
        with pytest.raises(DataError, match=f"{len(ends)} users.*fewer ranks"):
            partition_users(ends, batch_size, world_size)
        return
    partition = partition_users(ends, batch_size, world_size)
    check_batches(partition, int(ends[-1]))
    assert set(partition.cuts[1:]) <= set(ends)
    assert np.diff(partition.cuts).min() >= 1
    assert partition.steps == min(-(-partition.sizes.max() // batch_size), partition.sizes.min())


@given(st.integers(1, 500), st.integers(1, 100), st.integers(1, 5_000))
def test_blocks_are_whole_steps_of_nearly_equal_number(steps, batch, block_rows):
    cuts = block_cuts(steps, steps * batch, block_rows)
    assert cuts[0] == 0 and cuts[-1] == steps
    assert np.diff(cuts).min() >= 1 and np.ptp(np.diff(cuts)) <= 1
    assert (np.diff(cuts).max() - 1) * batch < block_rows


def test_users_of_equal_size_are_divided_evenly():
    partition = partition_users(np.arange(1, 101) * 7, batch_size=16, world_size=8)
    assert sorted(partition.sizes) == [12 * 7] * 4 + [13 * 7] * 4
    assert partition.steps == 6  # ceil(91 / 16)


def test_one_huge_user_leaves_the_others_to_the_remaining_ranks():
    # Cuts at multiples of N/K would all fall inside the first user and leave two ranks empty.
    partition = partition_users(np.cumsum([9_000, *[10] * 30]), batch_size=100, world_size=4)
    np.testing.assert_array_equal(partition.sizes, [9_000, 100, 100, 100])
    assert partition.steps == 90


def test_a_rank_with_fewer_rows_than_steps_makes_the_batches_of_others_grow(caplog):
    partition = partition_users(np.cumsum([1_000_000, 1, 2]), batch_size=4096, world_size=2)
    np.testing.assert_array_equal(partition.sizes, [1_000_000, 3])
    assert partition.steps == 3
    np.testing.assert_array_equal(batch_sizes_of(partition, 1), [1, 1, 1])
    assert batch_sizes_of(partition, 0).max() == 333_334
    assert "batches have up to 333334 rows instead of 4096" in caplog.text


def test_batches_of_the_configured_size_log_no_warning(caplog):
    partition_users(np.arange(1, 101), batch_size=8, world_size=3)
    assert not caplog.records


def test_too_few_rows_name_split_and_ranks():
    with pytest.raises(DataError, match=r"validation: 7 rows, too few for 8 ranks. Use fewer ranks, or more data"):
        partition_rows(7, 16, 8, shuffle=True, split="validation")


def test_epoch_order_is_a_permutation_drawn_from_seed_and_epoch():
    order = epoch_order(50, seed=3, epoch=2)
    assert sorted(order) == list(range(50))
    np.testing.assert_array_equal(order, epoch_order(50, seed=3, epoch=2))
    assert not np.array_equal(order, epoch_order(50, seed=3, epoch=3))
    assert not np.array_equal(order, epoch_order(50, seed=4, epoch=2))


def test_row_seeds_of_all_blocks_differ():
    seeds = {row_seed(s, e, k, b) for s in range(3) for e in range(5) for k in range(5) for b in range(5)}
    assert len(seeds) == 3 * 5 * 5 * 5
