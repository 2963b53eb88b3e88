"""For any rows: the splits partition them, ids round-trip, and the split rule is the documented one."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from data_pipeline.schema import SPLITS, Schema
from tests.unit.data.prepare_helpers import prepare_custom, read_decoded, read_split, write_parquet

ENOUGH = [(0, 0, time, time % 2) for time in range(30)]  # so that no split is empty, and training has both labels
ids = st.one_of(st.integers(0, 12), st.integers(0, 2**63 - 1))
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)


@st.composite
def interactions(draw: st.DrawFn) -> dict[str, list]:
    rows = draw(st.lists(st.tuples(ids, ids, st.integers(0, 5), st.integers(0, 1)), max_size=40)) + ENOUGH
    rows = draw(st.permutations(rows))
    features = draw(st.lists(st.none() | texts, min_size=len(rows), max_size=len(rows)))
    user, item, time, label = (list(values) for values in zip(*rows, strict=True))
    if draw(st.booleans()):
        item = [f"item {value}" for value in item]
    place = [float(k) for k in range(len(rows))]  # identifies the row
    return {"user": user, "item": item, "time": time, "label": label, "feature": features, "place": place}


@settings(max_examples=15, deadline=None)
@given(interactions(), st.sampled_from(["user_time", "time", "random"]), st.integers(0, 3))
def test_splits_partition_the_rows_and_ids_round_trip(rows, split, seed):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        raw = write_parquet(folder / "raw.parquet", rows)
        options = {"split": split, "categorical": ("feature",), "dense": ("place",)}
        try:
            schema = prepare_custom(raw, folder / "out", seed=seed, **options)
        except ValueError as error:
            assert split == "random" and "split is empty" in str(error)
            return
        decoded = read_decoded(folder / "out")
        encoded = {name: read_split(folder / "out", name) for name in SPLITS}

    expected = Counter(zip(*(rows[key] for key in ("user", "item", "feature", "place", "label")), strict=True))
    assert Counter(tuple(row.values()) for split_rows in decoded.values() for row in split_rows) == expected
    for column in schema.categorical:
        seen = {row[column.name] for row in encoded["train"]}
        assert seen == set(range(column.num_seen))
        assert {row[column.name] for split_rows in encoded.values() for row in split_rows} == set(range(column.num_ids))
    if split != "random":
        assert {k: {row["place"] for row in v} for k, v in decoded.items()} == reference_split(rows, split)


def reference_split(rows: dict[str, list], split: str) -> dict[str, set[float]]:
    """Apply the documented rule in plain Python."""
    groups = defaultdict(list)
    for user, time, place in zip(rows["user"], rows["time"], rows["place"], strict=True):
        groups[user if split == "user_time" else None].append((time, place))
    result = {name: set() for name in SPLITS}
    for group in groups.values():
        moments = sorted({time for time, _ in group})
        count = len(moments) if split == "user_time" else len(group)
        train, validation = (max(1, count * part // 10) for part in (8, 9))
        for time, place in group:
            position = moments.index(time) if split == "user_time" else sum(other < time for other, _ in group)
            name = "train" if position < train else "validation" if position < validation else "test"
            result[name].add(place)
    return result


@pytest.mark.parametrize(
    "rows, expected",
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (5, (4, 0, 1)), (9, (7, 1, 1)), (10, (8, 1, 1)), (19, (15, 2, 2))],
)
def test_a_users_rows_at_8_1_1(tmp_path, rows, expected):
    """Prepare ``rows`` rows of user 1, and a user with enough rows for every split."""
    times = [*range(rows), *range(10)]
    users = [1] * rows + [2] * 10
    columns = {"user": users, "item": times, "label": [time % 2 for time in times], "time": times}
    prepare_custom(write_parquet(tmp_path / "raw.parquet", columns), tmp_path / "out")
    decoded = read_decoded(tmp_path / "out")
    assert tuple(sum(row["user_id"] == 1 for row in decoded[split]) for split in SPLITS) == expected


def test_a_random_split_is_near_8_1_1_and_changes_with_the_seed(tmp_path):
    n = 4_000
    columns = {"user": [k % 50 for k in range(n)], "item": list(range(n)), "label": [0, 1] * (n // 2)}
    raw = write_parquet(tmp_path / "raw.parquet", columns)
    tests = []
    for seed in (0, 1):
        prepare_custom(raw, tmp_path / str(seed), seed=seed, time=None)
        schema = Schema.load(tmp_path / str(seed))
        shares = [schema.splits[split].rows / n for split in SPLITS]
        assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)  # 3 standard deviations of a binomial
        tests.append({row["item_id"] for row in read_decoded(tmp_path / str(seed))["test"]})
    assert len(tests[0] & tests[1]) < 0.2 * len(tests[0])


def test_rows_of_one_moment_stay_together_in_a_split_by_time(tmp_path):
    times = [k // 30 for k in range(1_000)]  # rows 780 to 809 share a moment, and the first 800 rows are for training
    columns = {"user": [k % 7 for k in range(1_000)], "item": list(range(1_000)), "label": [0, 1] * 500, "time": times}
    prepare_custom(write_parquet(tmp_path / "raw.parquet", columns), tmp_path / "out", split="time")
    spans = [{row["item_id"] // 30 for row in rows} for rows in read_decoded(tmp_path / "out").values()]
    assert [(min(span), max(span)) for span in spans] == [(0, 26), (27, 29), (30, 33)]
