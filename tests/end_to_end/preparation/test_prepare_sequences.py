"""Interaction histories as sequences: training pieces that predict every item once, and the items left out."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
from data_pipeline.preparation.report import Report
from data_pipeline.schema import SPLITS, Schema
from tests.unit.data.prepare_helpers import prepare_custom, read_split, write_csv

SEQUENCES = {"label": None, "sequences": 4}


def raw_histories() -> dict[int, list[int]]:
    """Make the items of every user by time: 3 to 14, so that pieces of every length occur, including one item."""
    rng = np.random.default_rng(3)
    return {10 + count: [int(i) for i in rng.permutation(30)[:count]] for count in range(3, 15)}


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, list[int]]]:
    """Prepare rows of all users mixed, with decreasing times in the file; return the folder and the histories."""
    folder, kept = tmp_path_factory.mktemp("sequences"), raw_histories()
    rows = [(user, item, 1, time) for user, items in kept.items() for time, item in enumerate(items)]
    rows.sort(key=lambda row: (-row[3], row[1]))
    prepare_custom(write_csv(folder / "raw.csv", rows), folder / "out", **SEQUENCES)
    return folder / "out", kept


def decoded(folder: Path, split: str) -> list[tuple[int, list[int], list[int]]]:
    users, items = (
        pq.read_table(folder / "ids" / f"{name}.parquet")["original_id"].to_pylist() for name in ("user_id", "item_id")
    )
    return [
        (users[row["user_id"]], *([items[i] for i in row[half]] for half in ("input", "target")))
        for row in read_split(folder, split)
    ]


def test_one_item_is_left_out_for_each_of_validation_and_test(histories: tuple[Path, dict]) -> None:
    folder, kept = histories
    assert decoded(folder, "test") == [(user, items[:-1][-4:], items[-1:]) for user, items in sorted(kept.items())]
    assert decoded(folder, "validation") == [
        (user, items[:-2][-4:], items[-2:-1]) for user, items in sorted(kept.items())
    ]


def test_training_pieces_predict_every_item_but_the_first_once(histories: tuple[Path, dict]) -> None:
    folder, kept = histories
    predicted, pairs = Counter(), set()
    for user, before, target in decoded(folder, "train"):
        piece = before + target
        assert 2 <= len(piece) <= 5
        assert len(target) == 1
        predicted.update((user, item) for item in piece[1:])
        pairs |= {(user, *pair) for pair in pairwise(piece)}
    training = {user: items[:-2] for user, items in kept.items()}
    assert predicted == Counter((user, item) for user, items in training.items() for item in items[1:])
    assert pairs == {(user, *pair) for user, items in training.items() for pair in pairwise(items)}


def test_the_last_piece_is_the_fullest(histories: tuple[Path, dict]) -> None:
    folder, kept = histories
    pieces = decoded(folder, "train")
    for user, items in kept.items():
        if len(items) > 3:
            assert (user, items[:-3][-4:], items[-3:-2]) in pieces


def test_schema_and_report(histories: tuple[Path, dict]) -> None:
    folder, kept = histories
    schema, report = Schema.load(folder), Report.load(folder)
    lengths = {column.name: column.max_length for column in schema.categorical if column.sequence}
    assert lengths == {"input": 4, "target": 1}
    assert (report.users, report.split) == (len(kept), "leave_one_out")
    assert report.interactions == sum(map(len, kept.values()))
    assert [report.rows[split] for split in SPLITS] == [len(read_split(folder, split)) for split in SPLITS]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "label", "sequences": 4}, "data.implicit=true"),
        ({"label": None, "sequences": 4, "time": None}, r"needs data\.time=COLUMN"),
        ({"label": None, "sequences": 4, "split": "random"}, "data.split=leave_one_out"),
        ({"label": None, "sequences": 4, "categorical": ("city",)}, r"columns city: .*data\.categorical=\[\]"),
        ({"label": None, "sequences": 4, "dense": ("price",)}, r"or set data\.sequences=null"),
    ],
)
def test_sequences_of_unsuitable_data_are_refused(tmp_path: Path, settings: dict, message: str) -> None:
    source = write_csv(tmp_path / "raw.csv", [(1, item, 1, item) for item in range(6)])
    with pytest.raises(DataError, match=message):
        prepare_custom(source, tmp_path / "out", **settings)


def test_rows_of_the_same_time_have_one_order_in_all_splits(tmp_path: Path) -> None:
    """All rows of a user share a time; the left-out rows, which the hash chooses, are not in the training pieces."""
    rows = [(user, 100 * user + item, 1, 7) for user in range(6) for item in range(9)]
    prepare_custom(write_csv(tmp_path / "raw.csv", rows), tmp_path / "out", **SEQUENCES)
    parts = {split: decoded(tmp_path / "out", split) for split in SPLITS}
    trained = {(user, item) for user, before, target in parts["train"] for item in before + target}
    left_out = {(user, target[0]) for split in ("validation", "test") for user, _, target in parts[split]}
    assert (len(trained), len(left_out), trained & left_out) == (6 * 7, 6 * 2, set())
    last = {user: target[0] for user, _, target in parts["validation"]}
    assert all(before[-1] == last[user] for user, before, _ in parts["test"])
    assert Report.load(tmp_path / "out").ties["cut_groups"] == 6
