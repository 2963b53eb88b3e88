import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch

from data_pipeline.errors import DataError
from data_pipeline.streaming.epoch import BlockWork
from data_pipeline.streaming.loader import KeptBatches, build_loader
from data_pipeline.streaming.stream import AHEAD
from tests.unit.data.stream_fixtures import interactions, interactions_of, items, same_batches, write_folder

ROWS = 640


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    return folder, write_folder(folder, {"train": interactions(ROWS, users=60)}, group_rows=(50, 33))


def loader_of(prepared, *, batch_size=32, shuffle=True, shuffle_buffer=100, **arguments):
    folder, schema = prepared
    return build_loader(
        folder, schema, "train", batch_size, shuffle=shuffle, shuffle_buffer=shuffle_buffer, **arguments
    )


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_together_read_the_split_exactly_once(prepared, workers):
    loaders = [loader_of(prepared, rank=rank, world_size=2, workers=workers, batch_size=24) for rank in range(2)]
    ranks = [list(loader) for loader in loaders]
    assert [len(batches) for batches in ranks] == [len(loader) for loader in loaders]
    assert sorted(np.concatenate([items(batches) for batches in ranks])) == list(range(ROWS))
    for step in zip(*ranks, strict=True):
        rows = sum(map(len, step))
        assert [float(batch.weight) for batch in step] == pytest.approx([len(batch) * 2 / rows for batch in step])


def test_threads_give_the_same_batches(prepared):
    here = list(loader_of(prepared))
    assert len(here) == 20
    for workers in (1, 2, 3):
        there = list(loader_of(prepared, workers=workers))
        assert same_batches(here, there)
        assert here[0].ids.length_per_key() == there[0].ids.length_per_key()
        assert here[0].ids.offset_per_key() == there[0].ids.offset_per_key()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_the_state_after_the_last_trained_batch_yields_the_remaining_batches(prepared, workers):
    whole = epoch_of(loader_of(prepared, workers=workers, seed=3), 4)
    loader = loader_of(prepared, workers=workers, seed=3)
    loader.set_epoch(4)
    batches = iter(loader)
    ahead = list(islice(batches, 9))  # a pipeline has taken nine batches and trained six
    assert batches.yielded == len(ahead) == 9
    state = json.loads(json.dumps(batches.state_after(6)))
    del batches

    resumed = loader_of(prepared, workers=workers, seed=3)
    resumed.load_state_dict(state)
    assert resumed.epoch == 4
    batches = iter(resumed)
    first = list(islice(batches, 5))
    again = batches.state_after(8)  # counts from the start of the epoch, also after a resume
    left = first + list(batches)
    assert same_batches(left, whole[6:])

    resumed.load_state_dict(again)
    assert same_batches(list(resumed), whole[8:])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_epoch_after_a_resumed_one_is_complete(prepared, workers):
    loader = loader_of(prepared, workers=workers)
    batches = iter(loader)
    list(islice(batches, 3))
    resumed = loader_of(prepared, workers=workers)
    resumed.load_state_dict(batches.state_after(3))
    del batches
    list(resumed)
    assert same_batches(epoch_of(resumed, 1), epoch_of(loader, 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_at_the_end_of_an_epoch_yields_nothing(prepared, workers):
    loader = loader_of(prepared, workers=workers)
    batches = iter(loader)
    list(batches)
    loader.load_state_dict(batches.state_after(len(loader)))
    assert list(loader) == []
    assert len(epoch_of(loader, 1)) == len(loader)


def test_state_before_the_first_batch_is_the_whole_epoch(prepared):
    loader = loader_of(prepared)
    state = iter(loader).state_after(0)
    loader.load_state_dict(state)
    assert same_batches(list(loader), list(loader_of(prepared)))


def test_a_loaded_state_applies_only_to_its_epoch(prepared):
    loader = loader_of(prepared)
    batches = iter(loader)
    list(islice(batches, 5))
    state = batches.state_after(5)
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert len(list(loader)) == len(loader) - 5
    loader.load_state_dict(state)
    assert len(epoch_of(loader, 1)) == len(loader)


def test_the_state_of_a_batch_that_was_not_yielded_is_refused(prepared):
    batches = iter(loader_of(prepared, batch_size=4))
    list(islice(batches, 100))
    assert batches.state_after(10)["batches"] == 10
    with pytest.raises(ValueError, match="state after 101 batches: only 100 were yielded"):
        batches.state_after(101)


def test_state_is_the_same_on_every_number_of_ranks_and_threads(prepared):
    states = []
    for rank, world_size, workers in ((0, 1, 0), (0, 2, 1), (1, 2, 0), (3, 4, 2)):
        batch_size = 32 // world_size
        loader = loader_of(prepared, rank=rank, world_size=world_size, workers=workers, batch_size=batch_size)
        batches = iter(loader)
        list(islice(batches, 4))
        states.append(batches.state_after(3))
    assert all(state == states[0] for state in states)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"world_size": 2}, "saved with batch_size = 32, .*loaded with batch_size = 64"),
        (
            {"batch_size": 16, "seed": 1},
            "saved with batch_size = 32, seed = 0, .*loaded with batch_size = 16, seed = 1",
        ),
        ({"shuffle": False}, "saved with shuffle = True, .*loaded with shuffle = False"),
        ({"shuffle_buffer": 50}, "saved with shuffle_buffer = 100, loaded with shuffle_buffer = 50"),
    ],
)
def test_state_of_another_run_is_refused(prepared, other, message):
    state = iter(loader_of(prepared)).state_after(0)
    with pytest.raises(DataError, match=message):
        loader_of(prepared, **other).load_state_dict(state)


def test_state_of_other_data_is_refused(prepared, tmp_path):
    state = iter(loader_of(prepared)).state_after(0)
    regrouped = write_folder(tmp_path, {"train": interactions(ROWS, users=60)}, group_rows=(64,))
    with pytest.raises(DataError, match="saved with row_group_checksum = "):
        loader_of((tmp_path, regrouped)).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 1])
def test_global_random_numbers_are_not_consumed(prepared, workers):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    list(loader_of(prepared, workers=workers))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_invalid_value_in_a_thread_is_named_and_ends_the_threads(tmp_path, workers):
    schema = write_folder(tmp_path, {"train": interactions_of([0, 0, 1, 2])}, files=1)
    users = replace(schema.categorical[0], num_ids=2)
    schema = replace(schema, categorical=(users, *schema.categorical[1:]))
    with pytest.raises(DataError, match="row group 0, row 3: user = 2, expected an id from 0 to 1"):
        list(build_loader(tmp_path, schema, "train", 2, shuffle=True, workers=workers))
    assert data_threads() == []


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("data")]


@pytest.mark.parametrize("ending", ["end", "close", "forgotten"])
def test_no_thread_is_left_after_an_iteration(prepared, ending):
    batches = iter(loader_of(prepared, workers=2))
    next(batches)
    assert len(data_threads()) == 2
    if ending == "end":
        list(batches)
    elif ending == "close":
        batches.close()
    del batches
    assert data_threads() == []


def test_read_ahead_is_bounded(prepared, monkeypatch):
    made, make = [], BlockWork.batch

    def recording(self, step):
        made.append(step)
        return make(self, step)

    monkeypatch.setattr(BlockWork, "batch", recording)
    batches = iter(loader_of(prepared, batch_size=4, workers=2))
    next(batches)
    time.sleep(0.2)
    assert 1 < len(made) <= 1 + 2 * AHEAD
    batches.close()


def test_an_interpreter_exits_while_threads_have_work():
    program = (
        "import time; from data_pipeline.streaming.threads import Threads, in_order; pool = Threads(2);"
        "results = in_order((pool.submit(time.sleep, 0.01) for _ in range(10**6)), 8); next(results); print('ready')"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "ready\n")


def test_few_batches_are_read_once_and_many_at_every_iteration(prepared):
    loader = loader_of(prepared, shuffle=False)
    expected = list(loader)
    size = sum(batch.nbytes for batch in expected)
    for most, read_again in ((size, False), (size - 1, True)):
        kept = KeptBatches(loader, most)
        next(iter(kept))  # an iteration that ends early keeps nothing
        first, second = list(kept), list(kept)
        assert len(kept) == len(expected)
        assert same_batches(first, expected)
        assert same_batches(second, expected)
        assert all((one is other) != read_again for one, other in zip(first, second, strict=True))
