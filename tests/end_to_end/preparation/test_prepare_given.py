"""The split of a data set is kept; validation rows are taken from training only by a rule."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_pipeline.datasets.custom import Custom
from data_pipeline.errors import DataError
from data_pipeline.history import History
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.workspace import open_workspace, quoted
from data_pipeline.schema import Schema
from tests.unit.data.prepare_helpers import NAMES, pairs, prepare_custom, read_decoded, write_csv, write_parquet

USERS, ROWS = 8, 10


def given_rows() -> list[tuple]:
    """Make (user, item, label, time, part): the last two of each user's ten rows are in test."""
    return [
        (user, 100 * user + place if place % 2 else place, place % 2, place, "test" if place > 7 else "train")
        for user in range(USERS)
        for place in range(ROWS)
    ]


def prepare_given(folder: Path, rows: list[tuple] | None = None, **settings) -> dict[str, list[tuple]]:
    source = write_csv(folder / "raw.csv", rows or given_rows(), (*NAMES, "part"))
    prepare_custom(source, folder / "out", split_column="part", **settings)
    return {split: sorted(pairs(decoded)) for split, decoded in read_decoded(folder / "out").items()}


def expected(part: str) -> list[tuple]:
    return sorted(row[:2] for row in given_rows() if row[4] == part)


@pytest.mark.parametrize("implicit", [False, True])
def test_no_training_row_is_taken_without_a_validation_rule(tmp_path, caplog, implicit):
    settings = {"label": None, "candidates": 3} if implicit else {}
    with caplog.at_level("INFO"):
        splits = prepare_given(tmp_path, **settings)
    assert splits == {"train": expected("train"), "test": expected("test")}
    assert list(Schema.load(tmp_path / "out").splits) == ["train", "test"]
    assert not (tmp_path / "out/validation").exists()
    report = Report.load(tmp_path / "out")
    assert (report.validation, report.rows) == ("none", {"train": USERS * 8, "test": USERS * 2})
    assert "no validation rows: training will run to its last epoch" in caplog.text
    if implicit:
        assert len(History.load(tmp_path / "out", "validation").items) == 0


def test_leave_one_out_takes_the_last_training_row_of_every_user(tmp_path, caplog):
    with caplog.at_level("INFO"):
        splits = prepare_given(tmp_path, validation="leave_one_out")
    assert splits["validation"] == [(user, 100 * user + 7) for user in range(USERS)]
    assert sorted(splits["train"] + splits["validation"]) == expected("train")
    assert splits["test"] == expected("test")
    assert Report.load(tmp_path / "out").validation == "leave_one_out"
    assert f"took {USERS} validation rows from training by leave_one_out" in caplog.text


@pytest.mark.parametrize(("time", "share"), [("time", 1), (None, None)])
def test_a_ratio_takes_a_share_of_the_training_rows(tmp_path, time, share):
    splits = prepare_given(tmp_path, validation="ratio", time=time, ratios=(7, 1, 1))
    assert sorted(splits["train"] + splits["validation"]) == expected("train")
    assert splits["test"] == expected("test")
    if share is None:
        assert 1 <= len(splits["validation"]) <= 20  # of 64 rows an eighth, at random
    else:
        assert splits["validation"] == [(user, 100 * user + 7) for user in range(USERS)]


def test_a_validation_rule_is_refused_where_it_has_no_effect(tmp_path):
    rows = [(*row[:4], "validation" if row[3] == 7 else row[4]) for row in given_rows()]
    with pytest.raises(DataError, match=r"data\.validation = ratio: the given split has 8 validation rows"):
        prepare_given(tmp_path, rows, validation="ratio")
    with pytest.raises(DataError, match=r"data\.validation = ratio: only for data\.split = given; .* user_time"):
        prepare_given(tmp_path, validation="ratio", split="user_time")
    prepare_given(tmp_path, rows)
    assert Report.load(tmp_path / "out").validation == "given"


def test_the_files_of_a_split_need_no_memory_in_proportion_to_their_rows(tmp_path):
    """1,500,000 rows, read with 40 MB."""
    rows = np.arange(500_000)
    parts = {"train": "a", "validation_file": "b", "test": "c"}
    files = {part: str(tmp_path / f"{name}.parquet") for part, name in parts.items()}
    for file in files.values():
        write_parquet(Path(file), {"user": rows % 1000, "item": rows % 777, "label": rows % 2, "time": rows})
    data = Custom(source=None, **files, user="user", item="item", label="label", time="time")
    with open_workspace(tmp_path / "scratch", memory_gb=0.04, seed=0, on_progress=print) as workspace:
        data.read(workspace)
        assert data.columns.split is not None
        found = workspace.query(
            f"SELECT {quoted(data.columns.split)}, __file, count(*) FROM raw GROUP BY ALL ORDER BY 2"
        )
    assert found == [(part.removesuffix("_file"), file, len(rows)) for part, file in files.items()]


def test_a_given_split_without_test_or_training_is_refused(tmp_path):
    for kept, missing in (("train", "test"), ("test", "train")):
        rows = [row for row in given_rows() if row[4] == kept]
        with pytest.raises(DataError, match=f"the {missing} split is empty"):
            prepare_given(tmp_path, rows)
