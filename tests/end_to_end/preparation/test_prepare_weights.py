"""Sample weights of a user's own files."""

from __future__ import annotations

import pytest

from data_pipeline.errors import DataError
from data_pipeline.preparation.report import Report
from data_pipeline.schema import WEIGHT, Schema
from data_pipeline.streaming.loader import build_loader
from tests.unit.data.prepare_helpers import NAMES, prepare_custom, read_decoded, some_rows, write_csv

WEIGHTED = (*NAMES, "importance")


def weighted_rows() -> list[tuple]:
    return [(*row, number % 7 / 4) for number, row in enumerate(some_rows())]


def test_weights_are_kept_with_their_rows(tmp_path):
    rows = weighted_rows()
    prepare_custom(write_csv(tmp_path / "raw.csv", rows, WEIGHTED), tmp_path / "out", weight="importance")
    schema = Schema.load(tmp_path / "out")
    assert schema.weight == WEIGHT
    written = [row for split in read_decoded(tmp_path / "out").values() for row in split]
    found = sorted((row["user_id"], row["item_id"], row[WEIGHT]) for row in written)
    assert found == sorted((user, item, weight) for user, item, _, _, weight in rows)
    sums = [
        sum(
            batch.sample_weights.sum().item()
            for batch in build_loader(tmp_path / "out", schema, split, 7, shuffle=True)
        )
        for split in schema.splits
    ]
    assert sum(sums) == sum(weight for *_, weight in rows)


def test_weights_of_implicit_feedback(tmp_path):
    """The first row of a pair is kept, with its weight."""
    rows = [row for row in weighted_rows() if (row[0] + row[1]) % 3]
    raw = write_csv(tmp_path / "raw.csv", [*rows, (10, 100, 1, 99, 5.0)], WEIGHTED)
    prepare_custom(raw, tmp_path / "out", weight="importance", label=None, candidates=3)
    kept = {(row["user_id"], row["item_id"]): row[WEIGHT] for row in read_decoded(tmp_path / "out")["train"]}
    assert kept[10, 100] == next(weight for user, item, _, _, weight in weighted_rows() if (user, item) == (10, 100))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("-0.5", "column 'importance': negative weight in 1 row, first '-0.5' in data row 3"),
        ("nan", "column 'importance': weight is not a finite number in 1 row, first 'nan' in data row 3"),
        ("", "column 'importance': null weight in 1 row"),
        ("much", "column 'importance': weight is not a finite number in 1 row, first 'much' in data row 3"),
    ],
)
def test_invalid_weights_are_refused_or_dropped(tmp_path, value, message):
    rows = [(*row[:4], value) if number == 2 else row for number, row in enumerate(weighted_rows())]
    raw = write_csv(tmp_path / "raw.csv", rows, WEIGHTED)
    with pytest.raises(DataError) as caught:
        prepare_custom(raw, tmp_path / "out", weight="importance")
    assert message in str(caught.value)
    prepare_custom(raw, tmp_path / "out", weight="importance", on_invalid="drop")
    assert sum(Report.load(tmp_path / "out").rows_dropped.values()) == 1


def test_weights_that_count_no_row_are_refused(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", [(*row, 0) for row in some_rows()], WEIGHTED)
    with pytest.raises(DataError, match="'importance': all weights of the train split are 0, so that no row counts"):
        prepare_custom(raw, tmp_path / "out", weight="importance")


def test_a_weight_with_sequences_is_refused(tmp_path):
    raw = write_csv(tmp_path / "raw.csv", weighted_rows(), WEIGHTED)
    with pytest.raises(DataError, match=r"data.sequences = 5, data.weight = importance: a row is a sequence"):
        prepare_custom(raw, tmp_path / "out", weight="importance", label=None, sequences=5)
