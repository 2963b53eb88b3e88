"""Eight ranks in one process: the fake backend delivers nothing, so what holds here needs no communication."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from data_pipeline.streaming.loader import build_loader
from tests.unit.data.stream_fixtures import interactions, write_folder

WORLD_SIZE = 8
ROWS = 1_237


@contextmanager
def fake_rank(rank):
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=WORLD_SIZE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def batches_of_ranks(folder, schema, split, **arguments):
    """[rank][step]"""
    ranks = []
    for rank in range(WORLD_SIZE):
        with fake_rank(rank):
            loader = build_loader(folder, schema, split, 24, dist.get_rank(), dist.get_world_size(), **arguments)
            loader.set_epoch(1)
            ranks.append(list(loader))
    return ranks


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    splits = {"train": interactions(ROWS, users=100), "test": interactions(300, users=40, seed=1)}
    return folder, write_folder(folder, splits, group_rows=(100,), files=3)


def test_eight_ranks_train_on_every_row_once_in_equal_steps(prepared):
    ranks = batches_of_ranks(*prepared, "train", shuffle=True, shuffle_buffer=64)
    assert [len(batches) for batches in ranks] == [7] * WORLD_SIZE  # ceil(1237 / (8 * 24))
    read = [torch.cat([batch.items for batch in batches]).numpy() for batches in ranks]
    assert sorted(map(len, read)) == [154] * 3 + [155] * 5
    assert sorted(np.concatenate(read)) == list(range(ROWS))


def test_eight_ranks_agree_on_the_size_of_the_global_batch(prepared):
    for step in zip(*batches_of_ranks(*prepared, "train", shuffle=True), strict=True):
        implied = [len(batch) * WORLD_SIZE / float(batch.weight) for batch in step]
        assert implied == pytest.approx([sum(map(len, step))] * WORLD_SIZE)


def test_eight_ranks_evaluate_whole_users_in_equal_steps(prepared):
    ranks = batches_of_ranks(*prepared, "test", group_by_user=True)
    assert len({len(batches) for batches in ranks}) == 1
    users = [set(torch.cat([batch.users for batch in batches]).tolist()) for batches in ranks]
    assert all(users) and sum(map(len, users)) == len(set().union(*users))
    read = np.concatenate([batch.items.numpy() for batches in ranks for batch in batches])
    np.testing.assert_array_equal(read, np.arange(300))
