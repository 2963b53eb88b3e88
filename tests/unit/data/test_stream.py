import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from data_pipeline.errors import DataError
from data_pipeline.schema import Dense
from data_pipeline.streaming.epoch import DECODED_BYTES, rows_at_once
from data_pipeline.streaming.partition import LANES
from data_pipeline.streaming.row_groups import AT_ONCE, RowReader
from data_pipeline.streaming.settings import StreamSettings
from data_pipeline.streaming.stream import ParquetStream
from tests.unit.data.stream_fixtures import (
    MEAN,
    STD,
    interactions,
    interactions_of,
    items,
    same_batches,
    write_folder,
)

ROWS = 1_003


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    table = interactions(ROWS, users=90)
    return folder, write_folder(folder, {"train": table}, group_rows=(40, 0, 77, 5), num_seen=ROWS - 100), table


def rank_batches(folder, schema, world_size=1, epoch=0, **arguments):
    """Return the batches of every rank: [rank][step]."""
    streams = [
        ParquetStream(folder, schema, "train", StreamSettings(rank=rank, world_size=world_size, **arguments))
        for rank in range(world_size)
    ]
    return [list(stream.batches(epoch)) for stream in streams]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_together_read_the_split_exactly_once(prepared, world_size, shuffle):
    folder, schema, _ = prepared
    ranks = rank_batches(folder, schema, world_size, batch_size=32, shuffle=shuffle, shuffle_buffer=150)
    assert len({len(batches) for batches in ranks}) == 1
    assert min(len(batch) for batches in ranks for batch in batches) >= 1
    read = np.concatenate([items(batches) for batches in ranks])
    if shuffle:
        assert not np.array_equal(read, np.arange(ROWS))
        read.sort()
    np.testing.assert_array_equal(read, np.arange(ROWS))


def test_every_field_belongs_to_its_row(prepared):
    folder, schema, table = prepared
    stored = table.to_pydict()
    (batches,) = rank_batches(folder, schema, batch_size=50, shuffle=True, shuffle_buffer=128)
    for batch in batches:
        rows = batch.items.tolist()
        assert batch.users.tolist() == [stored["user"][row] for row in rows]
        assert batch.labels.tolist() == [stored["label"][row] for row in rows]
        age = np.array([stored["age"][row] for row in rows])
        np.testing.assert_allclose(batch.dense.numpy(), ((age - MEAN) / STD)[:, None], rtol=1e-5, atol=1e-6)
        lists = batch.ids.to_dict()
        assert list(lists) == ["user", "history", "item"]
        assert [column.tolist() for column in lists["user"].to_dense()] == [[user] for user in batch.users.tolist()]
        history = [[min(item, ROWS - 100) for item in stored["history"][row]] for row in rows]
        assert [column.tolist() for column in lists["history"].to_dense()] == history
        assert batch.ids["item"].values().tolist() == [min(row, ROWS - 100) for row in rows]


def test_batch_has_the_declared_types_and_shapes(prepared):
    folder, schema, _ = prepared
    batch = next(ParquetStream(folder, schema, "train", StreamSettings(ROWS)).batches(0))
    keys = batch.ids.keys()
    assert batch.dense.dtype == batch.labels.dtype == batch.weight.dtype == torch.float32
    assert batch.users.dtype == batch.items.dtype == batch.ids.values().dtype == torch.int64
    assert batch.dense.shape == (ROWS, 1) and batch.weight.shape == () and batch.ids.stride() == ROWS
    assert batch.ids.length_per_key() == [len(batch.ids[key].values()) for key in keys]
    assert batch.ids.offset_per_key() == [0, *np.cumsum(batch.ids.length_per_key())]


def test_a_schema_with_fewer_columns_reads_fewer_columns(prepared):
    folder, schema, _ = prepared
    narrow = replace(schema, categorical=(schema.categorical[2], schema.categorical[0]), dense=())
    batch = next(ParquetStream(folder, narrow, "train", StreamSettings(ROWS)).batches(0))
    assert batch.ids.keys() == ["item", "user"]
    assert batch.ids["user"].values().tolist() == batch.users.tolist()
    assert batch.ids.lengths().tolist() == [1] * 2 * ROWS
    assert batch.dense.shape == (ROWS, 0)


def test_epochs_differ_and_repeat_from_their_seed(prepared):
    folder, schema, _ = prepared

    def order(epoch, seed):
        arguments = {"batch_size": 64, "shuffle": True, "shuffle_buffer": 300}
        return items(rank_batches(folder, schema, epoch=epoch, seed=seed, **arguments)[0]).tolist()

    assert order(0, seed=1) == order(0, seed=1)
    assert order(0, seed=1) != order(1, seed=1)
    assert order(0, seed=1) != order(0, seed=2)
    assert sorted(order(7, seed=1)) == list(range(ROWS))


def test_shuffling_reaches_across_row_groups_and_within_them(prepared):
    folder, schema, _ = prepared
    (batches,) = rank_batches(folder, schema, batch_size=32, shuffle=True, shuffle_buffer=ROWS)
    assert min(np.ptp(batch.items.numpy()) for batch in batches) > ROWS / 2  # a batch has rows of all lanes
    steps = np.diff(np.array([batch.items.numpy()[0] for batch in batches]))
    assert (np.abs(steps) == 1).mean() < 0.3  # and a lane's are permuted
    (batches,) = rank_batches(folder, schema, batch_size=1, shuffle=True, shuffle_buffer=1)
    steps = np.diff(items(batches)[::LANES])
    assert (steps == 1).mean() > 0.8  # a buffer of one row: only row groups move


def test_every_block_of_every_epoch_and_lane_has_another_permutation(tmp_path):
    rows, half = LANES * 40, LANES * 20
    schema = write_folder(tmp_path, {"train": interactions(rows, users=9)}, group_rows=(40,), files=1)
    permutations = set()
    for epoch in range(2):
        (batches,) = rank_batches(tmp_path, schema, 1, epoch, batch_size=half, shuffle=True, shuffle_buffer=half)
        assert len(batches) == 2
        permutations |= {tuple(part % 20) for batch in batches for part in np.split(batch.items.numpy(), LANES)}
    assert len(permutations) == 2 * 2 * LANES


def test_weights_average_to_the_global_mean(prepared):
    folder, schema, table = prepared
    ranks = rank_batches(folder, schema, world_size=3, batch_size=33)
    for step in zip(*ranks, strict=True):
        rows = np.concatenate([batch.items for batch in step])
        mean = table["label"].to_numpy()[rows].mean()
        weighted = np.mean([float(batch.weight * batch.labels.mean()) for batch in step])
        np.testing.assert_allclose(weighted, mean, rtol=1e-6)


@pytest.mark.parametrize("step", [0, 1, 4, 9, 15, 16])
@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_from_a_step_on_are_those_of_the_whole_epoch(prepared, step, shuffle):
    folder, schema, _ = prepared
    stream = ParquetStream(folder, schema, "train", StreamSettings(64, seed=5, shuffle=shuffle, shuffle_buffer=100))
    assert same_batches(list(stream.batches(3, step)), list(stream.batches(3))[step:])


def test_resuming_decodes_only_the_row_groups_of_its_block(prepared, monkeypatch):
    folder, schema, _ = prepared
    opened, decode = [], RowReader._decode

    def recorded(parts):
        for part in parts:
            opened.append(part.group)
            yield part

    monkeypatch.setattr(RowReader, "_decode", lambda self, parts: decode(self, recorded(parts)))
    stream = ParquetStream(folder, schema, "train", StreamSettings(10))
    list(stream.batches(0))
    assert opened == [group for group, rows in enumerate(stream.plan.groups.rows) if rows]  # each row group once
    opened.clear()
    stream = ParquetStream(folder, schema, "train", StreamSettings(10, shuffle=True, shuffle_buffer=40))
    next(stream.batches(epoch=0, step=80))
    assert len(opened) <= 2 * LANES  # three rows of each lane


def test_decoded_rows_are_released(tmp_path):
    held = [arrow_bytes_of_an_epoch(tmp_path / str(rows), rows) for rows in (40_000, 160_000)]
    assert 0 < held[1] < 1.2 * held[0]


def arrow_bytes_of_an_epoch(folder, rows):
    schema = write_folder(folder, {"train": interactions(rows, users=100)}, group_rows=(1_000,))
    before, held = pa.total_allocated_bytes(), []
    for _ in ParquetStream(folder, schema, "train", StreamSettings(500, shuffle=True, shuffle_buffer=8_000)).batches(0):
        held.append(pa.total_allocated_bytes() - before)
    for _ in range(100):
        if pa.total_allocated_bytes() > before:
            time.sleep(0.05)  # Arrow's own threads may hold the last of it for a moment
    assert pa.total_allocated_bytes() <= before
    return max(held)


def test_evaluation_keeps_users_whole_and_in_order(prepared):
    folder, schema, table = prepared
    ranks = rank_batches(folder, schema, world_size=4, batch_size=20, group_by_user=True)
    users = [set(torch.cat([batch.users for batch in batches]).tolist()) for batches in ranks]
    assert sum(map(len, users)) == len(set().union(*users)) == len(set(table["user"].to_pylist()))
    assert len({len(batches) for batches in ranks}) == 1
    np.testing.assert_array_equal(np.concatenate([items(batches) for batches in ranks]), np.arange(ROWS))


def test_a_user_in_several_row_groups_and_files_is_one_user(tmp_path):
    schema = write_folder(tmp_path, {"train": interactions_of([0] * 3 + [1] * 90 + [2] * 7)}, group_rows=(10,), files=3)
    ranks = rank_batches(tmp_path, schema, world_size=3, batch_size=8, group_by_user=True)
    assert [set(torch.cat([batch.users for batch in batches]).tolist()) for batches in ranks] == [{0}, {1}, {2}]


def test_unknown_split_and_too_many_ranks_are_refused(prepared):
    folder, schema, _ = prepared
    with pytest.raises(DataError, match="no split 'test'"):
        ParquetStream(folder, schema, "test", StreamSettings(4))
    with pytest.raises(DataError, match="train: 1003 rows, too few for 2000 ranks"):
        ParquetStream(folder, schema, "train", StreamSettings(4, world_size=2000))
    with pytest.raises(DataError, match="train: 90 users, each kept on one rank, too few for 91 ranks"):
        ParquetStream(folder, schema, "train", StreamSettings(4, world_size=91, group_by_user=True))


def test_schema_without_an_entity_or_with_a_constant_dense_column_is_refused(prepared):
    folder, schema, _ = prepared
    with pytest.raises(DataError, match="no column has role 'item'"):
        ParquetStream(folder, replace(schema, categorical=schema.categorical[:2]), "train", StreamSettings(4))
    with pytest.raises(DataError, match="no column of one id per row has role 'user'"):
        ParquetStream(folder, replace(schema, categorical=schema.categorical[1:]), "train", StreamSettings(4))
    with pytest.raises(DataError, match=r"age has mean = 1.0, std = 0.0, expected .* std > 0"):
        ParquetStream(folder, replace(schema, dense=(Dense("age", 1.0, 0.0),)), "train", 4)


@pytest.mark.parametrize(
    "arguments",
    [
        {"batch_size": 0},
        {"batch_size": 1, "rank": 2, "world_size": 2},
        {"batch_size": 1, "shuffle_buffer": 0},
        {"batch_size": 1, "workers": -1},
        {"batch_size": 1, "seed": -1},
        {"batch_size": 1, "shuffle": True, "group_by_user": True},
    ],
)
def test_settings_out_of_range_are_refused(arguments):
    with pytest.raises(ValueError, match="|".join(set(arguments))):
        StreamSettings(**arguments)


@pytest.mark.parametrize("world_size", [2, 4])
def test_strides_are_equal_on_all_ranks_and_rows_past_a_batch_have_no_ids(prepared, world_size):
    folder, schema, _ = prepared
    ranks = rank_batches(folder, schema, world_size, batch_size=32)
    assert any(len(set(map(len, step))) > 1 for step in zip(*ranks, strict=True))
    for step in zip(*ranks, strict=True):
        assert {batch.ids.stride() for batch in step} == {max(map(len, step))}
        for batch in step:
            lengths = batch.ids.lengths().view(len(batch.ids.keys()), -1)
            assert not lengths[:, len(batch) :].any()


@pytest.mark.parametrize("shuffle", [True, False])
def test_lanes_decode_as_many_rows_at_a_time_as_fit_into_memory(prepared, shuffle):
    folder, schema, _ = prepared
    wide = replace(schema, categorical=(*schema.categorical[::2], replace(schema.categorical[1], max_length=10_000)))
    narrow = replace(schema, categorical=schema.categorical[::2], dense=())
    for each, width in ((wide, 8 * 10_002 + 4 + 4), (narrow, 8 * 2 + 4)):
        for world_size in (1, 4):
            stream = ParquetStream(folder, each, "train", StreamSettings(8, world_size=world_size, shuffle=shuffle))
            lanes = LANES // world_size if shuffle else 1
            assert rows_at_once(stream.plan) == min(AT_ONCE, DECODED_BYTES // (lanes * width))
