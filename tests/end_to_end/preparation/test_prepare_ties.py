"""Rows without an order (same user and time, or same request): no split divides them, and all are counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
from data_pipeline.preparation.report import Report
from data_pipeline.schema import REQUEST, SPLITS, Schema
from tests.unit.data.prepare_helpers import NAMES, pairs, prepare_custom, read_decoded, read_split, write_csv

LISTS = 12  # impression lists per user


def impressions(times: int = 1) -> list[tuple]:
    """Make (user, item, label, time, request): impressions of 1 to 5 rows, each at one of ``times`` times."""
    rows = []
    for user in range(6):
        for number in range(LISTS):
            size = 1 + (user + number) % 5
            moment = 10 * (number // times) + user
            rows += [
                (f"u{user}", 100 * number + row, (number + row) % 2, moment, f"r{user}-{number}") for row in range(size)
            ]
    return rows[::-1]


def splits_of(folder: Path, rows: list[tuple], key: int) -> dict[object, set[str]]:
    """Return the splits of the rows of every group; ``key``: the index of the group's name in a row."""
    group = {(row[0], row[1]): (row[0], row[key]) for row in rows}
    found = defaultdict(set)
    for split, decoded in read_decoded(folder).items():
        for pair in pairs(decoded):
            found[group[pair]].add(split)
    return found


def prepare_impressions(folder: Path, rows: list[tuple], **settings) -> Report:
    source = write_csv(folder / "raw.csv", rows, (*NAMES, "request"))
    prepare_custom(source, folder / "out", **settings)
    return Report.load(folder / "out")


@pytest.mark.parametrize("split", ["user_time", "time", "leave_one_out"])
def test_rows_of_a_user_and_time_are_never_divided(tmp_path, split, caplog):
    rows = impressions()
    with caplog.at_level("INFO"):
        report = prepare_impressions(tmp_path, rows, split=split)
    assert {len(splits) for splits in splits_of(tmp_path / "out", rows, 3).values()} == {1}
    sizes = [count for count in Counter((row[0], row[3]) for row in rows).values() if count > 1]
    assert report.ties == {"groups": len(sizes), "rows": sum(sizes), "users_of_one_group": 0, "cut_groups": 0}
    assert (
        f"{sum(sizes):,} rows share user and time with others, in {len(sizes):,} groups, each in one split"
        in caplog.text
    )


def test_the_moments_of_a_user_are_split_by_their_number(tmp_path):
    rows = impressions()
    prepare_impressions(tmp_path, rows)
    found = splits_of(tmp_path / "out", rows, 3)
    for user in range(6):
        in_order = [split for (name, _), [split] in sorted(found.items()) if name == f"u{user}"]
        assert in_order == ["train"] * 9 + ["validation"] + ["test"] * 2  # 12 moments at 8:1:1


def test_a_user_with_one_moment_is_in_training(tmp_path):
    rows = [*impressions(), *(("single", item, item % 2, 5, "r") for item in range(9))]
    report = prepare_impressions(tmp_path, rows)
    assert splits_of(tmp_path / "out", rows, 3)["single", 5] == {"train"}
    assert report.ties["users_of_one_group"] == 1


def test_the_error_of_an_empty_split_counts_users_with_a_single_time(tmp_path):
    rows = [(f"u{user}", item, item % 2, 7, "r") for user in range(3) for item in range(10)]
    with pytest.raises(DataError, match=r"same user and time stay together, and 3 of 3 users have a single time"):
        prepare_impressions(tmp_path, rows)


def test_implicit_leave_one_out_leaves_out_one_row_for_any_order_of_the_file(tmp_path):
    """All rows of a user share a time except the first one, which must be in training."""
    rows = [(user, item, 1, 0 if item == 0 else 9, "") for user in range(5) for item in range(8)]
    left_out = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        (tmp_path / name).mkdir()
        report = prepare_impressions(tmp_path / name, order, label=None, candidates=0)
        decoded = read_decoded(tmp_path / name / "out")
        for split in ("validation", "test"):
            assert sorted(user for user, _ in pairs(decoded[split])) == list(range(5))
        assert {(user, 0) for user in range(5)} <= set(pairs(decoded["train"]))
        assert report.ties == {"groups": 5, "rows": 35, "users_of_one_group": 0, "cut_groups": 5}
        left_out.append({item for _, item in pairs(decoded["test"])})
    assert all(len(items) > 1 for items in left_out)  # no position in the file is preferred


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("split", ["user_time", "time", "random", "leave_one_out"])
def test_rows_of_a_request_are_never_divided_and_are_consecutive(tmp_path, split, times):
    rows = impressions(times)
    report = prepare_impressions(tmp_path, rows, split=split, request="request")
    assert {len(splits) for splits in splits_of(tmp_path / "out", rows, 4).values()} == {1}
    assert report.ties["cut_groups"] == 0
    schema = Schema.load(tmp_path / "out")
    assert schema.requests == 6 * LISTS
    originals = pq.read_table(tmp_path / "out/ids/request_id.parquet")["original_id"].to_pylist()
    written = [row for name in SPLITS for row in read_split(tmp_path / "out", name)]
    assert {row[REQUEST] for row in written} == set(range(schema.requests))
    request_of = {(row[0], row[1]): row[4] for row in rows}
    for name, decoded in read_decoded(tmp_path / "out").items():
        requests = [originals[row[REQUEST]] for row in decoded]
        assert requests == [request_of[pair] for pair in pairs(decoded)]
        changes = sum(one != other for one, other in pairwise(requests))
        assert name == "train" or changes == len(set(requests)) - 1


def test_the_moment_of_a_request_is_that_of_its_first_row(tmp_path):
    """Another request begins between the rows of a request; the time of its first row counts."""
    rows = [
        ("u", 10 * number + row, row % 2, 10 * number + 15 * row, f"r{number}")
        for number in range(10)
        for row in (0, 1)
    ]
    prepare_impressions(tmp_path, rows, request="request")
    splits = {request: split for (_, request), [split] in splits_of(tmp_path / "out", rows, 4).items()}
    assert splits == {f"r{n}": "train" if n < 8 else "validation" if n == 8 else "test" for n in range(10)}


def test_a_random_split_by_request_needs_no_time(tmp_path):
    rows = impressions()
    prepare_impressions(tmp_path, rows, request="request", time=None)
    assert {len(splits) for splits in splits_of(tmp_path / "out", rows, 4).values()} == {1}


def test_a_request_of_several_users_is_refused_by_name(tmp_path):
    rows = [*impressions(), ("u9", 1, 1, 3, "r0-1")]
    pattern = r"column 'request': request of several users \(column 'user'\) in \d+ rows, first 'r0-1' in data row \d+"
    with pytest.raises(DataError, match=pattern):
        prepare_impressions(tmp_path, rows, request="request")
    rows.append(("u9", 2, 1, 3, None))
    with pytest.raises(DataError, match=r"column 'request': null or empty id in 1 row"):
        prepare_impressions(tmp_path, rows, request="request")


def test_requests_of_implicit_feedback_stay_together(tmp_path):
    rows = impressions()
    prepare_impressions(tmp_path, rows, request="request", implicit=True, candidates=0)
    assert {len(splits) for splits in splits_of(tmp_path / "out", rows, 4).values()} == {1}


def test_a_given_split_that_divides_requests_is_kept_and_logged(tmp_path, caplog):
    rows = [(*row, SPLITS[place % 3]) for place, row in enumerate(impressions())]
    source = write_csv(tmp_path / "raw.csv", rows, (*NAMES, "request", "part"))
    with caplog.at_level("INFO"):
        prepare_custom(source, tmp_path / "out", request="request", split_column="part")
    cut = Report.load(tmp_path / "out").ties["cut_groups"]
    assert cut > 0
    assert f"{cut:,} of them have rows in several splits (by the split of the data set)" in caplog.text
