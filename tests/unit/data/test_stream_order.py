"""The rows of global batches and their order do not depend on the number of ranks or threads."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipeline.batch import Batch
from data_pipeline.history import History
from data_pipeline.schema import Schema
from data_pipeline.streaming.categories import ItemsByCategory
from data_pipeline.streaming.loader import build_loader
from data_pipeline.streaming.transforms import DrawNegatives, RowTransform
from data_pipeline.streaming.vocabulary import VocabularySample
from tests.properties import few
from tests.unit.data.stream_fixtures import interactions, write_folder

USERS = 11
ROWS = st.one_of(st.integers(12, 40), st.integers(41, 250))
GROUPS = st.lists(st.integers(0, 90), min_size=1, max_size=4).filter(any)


class Data(NamedTuple):
    folder: Path
    schema: Schema


def written(folder: Path, rows: int, groups: list[int], files: int) -> Data:
    table = interactions(rows, users=USERS)
    return Data(folder, write_folder(folder, {"train": table}, group_rows=groups, files=files))


def drawing(schema: Schema, rows: int) -> list[RowTransform]:
    """Return transforms that draw negatives of every kind per row, and a sample per step."""
    rng = np.random.default_rng(0)
    lists = [np.sort(rng.choice(rows, rng.integers(0, rows), replace=False)) for _ in range(USERS)]
    history = History(np.cumsum([0, *map(len, lists)]), np.concatenate(lists))
    negatives = [DrawNegatives(schema, history, 2, source) for source in ("uniform", "popularity")]
    item = schema.entity("item")
    within = DrawNegatives(schema, history, 2, "uniform", category_share=0.5)
    within.categories = ItemsByCategory(rng.integers(0, 3, rows))
    negatives.append(within)
    return [*negatives, VocabularySample(item, 3, np.full(item.num_seen, 1 / item.num_seen))]


def rows_of(batch: Batch) -> list[tuple]:
    """Return every row with its lists; the first row also has the lists of the step."""
    lists = [[ids.tolist() for ids in batch.ids[key].to_dense()] for key in ("user", "history", "item")]
    return list(zip(batch.items.tolist(), batch.labels.tolist(), batch.dense.tolist(), *lists, strict=False))


def drawn_of(batch: Batch) -> tuple[list, list]:
    *negatives, sample = batch.ids.values().split(batch.ids.length_per_key())[3:]
    return [part.view(len(batch), -1).tolist() for part in negatives], sample.tolist()


def global_batches(data: Data, world_size: int, batch_size: int, resume: int = 0, **arguments) -> list:
    """Return for every step the rows of all ranks in order, their negatives, and the sample of each rank."""
    ranks = []
    for rank in range(world_size):
        loader = build_loader(*data, "train", batch_size // world_size, rank, world_size, **arguments)
        loader.set_epoch(2)
        if resume:
            loader.load_state_dict({"epoch": 2, "batches": resume, "stream": loader.stream.fingerprint})
        ranks.append(list(loader))
        assert len(ranks[-1]) == len(loader) - resume
    steps = []
    for step in zip(*ranks, strict=True):
        rows = sum(map(len, step))
        assert [float(b.weight) for b in step] == pytest.approx([len(b) * world_size / rows for b in step])
        assert {batch.ids.stride() for batch in step} == {max(map(len, step))}
        assert max(map(len, step)) - min(map(len, step)) <= 1
        negatives, samples = zip(*map(drawn_of, step), strict=True)
        assert all(sample == samples[0] for sample in samples)
        per_row = [list(chain(*parts)) for parts in zip(*negatives, strict=True)]
        steps.append((list(chain(*map(rows_of, step))), per_row, samples[0]))
    return steps


@given(
    rows=ROWS,
    ranks=st.sampled_from([(1, 3), (2, 0), (3, 2), (4, 1), (12, 0)]),
    resumed=st.sampled_from([(4, 0), (1, 2), (6, 1)]),
    groups=GROUPS,
    files=st.integers(1, 3),
    batch_size=st.sampled_from([24, 36, 60, 240]),
    shuffle_buffer=st.sampled_from([1, 30, 100, 1000]),
    resume=st.floats(0, 1),
    seed=st.integers(0, 3),
)
@few
def test_global_batches_are_the_same_on_any_number_of_ranks_and_threads(
    tmp_path_factory, rows, ranks, resumed, groups, files, batch_size, shuffle_buffer, resume, seed
):
    data = written(tmp_path_factory.mktemp("order"), rows, groups, files)
    order = {"shuffle": True, "shuffle_buffer": shuffle_buffer, "seed": seed}
    order["transforms"] = drawing(data.schema, rows)
    one = global_batches(data, 1, batch_size, **order)
    read = [row[0] for step, *_ in one for row in step]
    assert sorted(read) == list(range(rows))
    sizes = [len(step) for step, *_ in one]
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1 and len(one) == -(-rows // batch_size)
    world_size, workers = ranks
    assert global_batches(data, world_size, batch_size, workers=workers, **order) == one
    left, (world_size, workers) = round(resume * len(one)), resumed
    assert global_batches(data, world_size, batch_size, left, workers=workers, **order) == one[left:]


def test_more_ranks_than_lanes_read_the_same(tmp_path):
    data = written(tmp_path, 500, [50], 2)
    order = {"shuffle": True, "shuffle_buffer": 120, "transforms": drawing(data.schema, 500)}
    assert global_batches(data, 20, 60, **order) == global_batches(data, 1, 60, **order)


@pytest.mark.parametrize("world_size", [2, 4, 5])
def test_with_one_row_per_rank_and_step_every_rank_has_a_row(tmp_path, world_size):
    rows = 3 * world_size + 1
    data = written(tmp_path, rows, [4], 1)
    ranks = [list(build_loader(*data, "train", 1, rank, world_size, shuffle=True)) for rank in range(world_size)]
    assert [len(batches) for batches in ranks] == [3] * world_size
    assert min(len(batch) for batches in ranks for batch in batches) == 1
    assert sorted(i for batches in ranks for batch in batches for i in batch.items.tolist()) == list(range(rows))


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 15, 16, 17])
def test_fewer_rows_than_lanes(tmp_path, rows):
    loader = build_loader(*written(tmp_path, rows, [3], 1), "train", 8, shuffle=True)
    assert sorted(i for batch in loader for i in batch.items.tolist()) == list(range(rows))


@few
@given(rows=ROWS, groups=GROUPS, world_size=st.integers(1, 5), batch_size=st.integers(1, 40), workers=st.integers(0, 2))
def test_without_shuffling_ranks_read_the_file_in_order(
    tmp_path_factory, rows, groups, world_size, batch_size, workers
):
    data = written(tmp_path_factory.mktemp("order"), rows, groups, 2)
    ranks = [build_loader(*data, "train", batch_size, rank, world_size, workers=workers) for rank in range(world_size)]
    batches = [list(loader) for loader in ranks]
    assert len(set(map(len, batches))) == 1
    read = [i for of_rank in batches for batch in of_rank for i in batch.items.tolist()]
    assert read == list(range(rows))
