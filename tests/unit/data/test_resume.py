"""An epoch that is stopped and resumed several times, each time on another number of ranks and threads."""

from __future__ import annotations

import json
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import State, StreamLoader, build_loader
from tests.unit.data.stream_fixtures import interactions, items, write_folder

BATCH = 24  # rows of all ranks
EPOCH = 2


class Stage(NamedTuple):
    """A part of an epoch: the ranks and threads that train it, its steps, and the batches taken ahead of training."""

    world_size: int
    workers: int
    steps: int
    ahead: int


stages = st.lists(
    st.builds(Stage, st.sampled_from([1, 2, 3, 4, 8]), st.integers(0, 2), st.integers(0, 9), st.integers(0, 3)),
    min_size=2,
    max_size=4,
)
group_rows = st.lists(st.one_of(st.integers(0, 9), st.integers(0, 300)), min_size=1, max_size=4).filter(any)


def loaders_of(folder: Path, schema: Schema, stage: Stage) -> list[StreamLoader]:
    size, order = BATCH // stage.world_size, {"shuffle": True, "shuffle_buffer": 70, "seed": 5}
    ranks = range(stage.world_size)
    loaders = [
        build_loader(folder, schema, "train", size, rank, stage.world_size, workers=stage.workers, **order)
        for rank in ranks
    ]
    for loader in loaders:
        loader.set_epoch(EPOCH)
    return loaders


def train(folder: Path, schema: Schema, stage: Stage, state: State | None, last: bool) -> tuple[list[list[int]], State]:
    """Train a stage from a state; return the rows of every step over all ranks, and the state that all ranks save."""
    ranks, saved = [], []
    for loader in loaders_of(folder, schema, stage):
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        batches = iter(loader)
        before = batches.yielded
        taken = list(batches if last else islice(batches, stage.steps + stage.ahead))
        trained = taken if last else taken[: stage.steps]
        ranks.append([items([batch]).tolist() for batch in trained])
        saved.append(batches.state_after(before + len(trained)))
        batches.close()
    assert len(set(map(len, ranks))) == 1  # ranks in lock-step
    assert all(each == saved[0] for each in saved)
    return [[*chain(*step)] for step in zip(*ranks, strict=True)], saved[0]


def train_chain(folder: Path, schema: Schema, parts: list[Stage]) -> list[list[int]]:
    steps, state = [], None
    for number, stage in enumerate(parts, 1):
        found, state = train(folder, schema, stage, state, last=number == len(parts))
        steps += found
    return steps


@settings(max_examples=10, deadline=None)
@given(st.integers(BATCH, 300), group_rows, st.lists(st.integers(1, 90), min_size=1, max_size=4), stages)
def test_every_row_is_trained_once_however_often_an_epoch_is_resumed(tmp_path_factory, rows, group_rows, files, parts):
    folder = tmp_path_factory.mktemp("resume")
    schema = write_folder(folder, {"train": interactions(rows, users=9)}, group_rows=group_rows, files=files)
    steps = train_chain(folder, schema, parts)
    assert sorted(chain(*steps)) == list(range(rows))
    assert steps == train_chain(folder, schema, [Stage(1, 0, 0, 0)])  # the steps of an uninterrupted run of one rank


@pytest.mark.parametrize("ranks", [(1, 2, 4), (2, 1, 4), (4, 2, 1)])
def test_more_ranks_than_row_groups_resume(tmp_path, ranks):
    schema = write_folder(tmp_path, {"train": interactions(500, users=9)}, group_rows=(499,), files=1)
    steps = train_chain(tmp_path, schema, [Stage(size, number, 6, 1) for number, size in enumerate(ranks)])
    assert sorted(chain(*steps)) == list(range(500))


def test_the_epoch_after_a_chain_is_whole(tmp_path):
    schema = write_folder(tmp_path, {"train": interactions(300, users=9)}, group_rows=(40, 3), files=(1, 30))
    _, state = train(tmp_path, schema, Stage(4, 1, 5, 2), None, last=False)
    _, state = train(tmp_path, schema, Stage(2, 0, 3, 1), state, last=False)
    [loader] = loaders_of(tmp_path, schema, Stage(1, 0, 0, 0))
    loader.load_state_dict(state)
    assert len(list(loader)) == len(loader) - 8
    loader.set_epoch(EPOCH + 1)
    assert sorted(items(list(loader))) == list(range(300))
