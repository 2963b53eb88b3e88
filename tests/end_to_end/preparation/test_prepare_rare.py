"""Ids that are too rare in training for a table row of their own."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cove_dist.api import Run
from cove_dist.errors import ConfigError
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.inference.frequent_items import most_frequent
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.frequency import row_counts
from cove_dist.tasks.unseen import check_unseen
from cove_dist.training.program import train
from data_pipeline.errors import DataError
from data_pipeline.preparation.report import Report
from data_pipeline.rare_ids import buckets_of
from data_pipeline.schema import Schema
from data_pipeline.streaming.loader import build_loader
from tests.configurations import COVE, small_run
from tests.unit.data.prepare_helpers import prepare_custom, read_decoded, some_rows, write_csv

NAMES = ("user", "item", "label", "time", "city")
BUCKETS = 7


def rows() -> list[tuple]:
    """Items 100 to 160, ever rarer; a city that is text, or null."""
    return [
        (
            user,
            100 + (user * 7 + time * time) % (1 + time % 61),
            label,
            time,
            f"c{time * user % 23}" if time % 5 else "",
        )
        for user, _, label, time in some_rows(users=20, per_user=40)
    ]


def bucket(text: str) -> int:
    return int.from_bytes(hashlib.md5(text.encode()).digest()[8:], "little") % BUCKETS


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_csv(tmp_path_factory.mktemp("rare") / "raw.csv", rows(), NAMES)


@pytest.fixture(scope="module")
def hashed(raw: Path) -> Path:
    folder = raw.parent / "hashed"
    rule = {"min_count": {"item": 9, "city": 40}, "rare": "hash", "hash_buckets": BUCKETS}
    prepare_custom(raw, folder, categorical=("city",), **rule)
    return folder


@pytest.mark.parametrize("rare", ["oov", "hash"])
def test_ids_with_enough_training_rows_have_a_row(raw: Path, hashed: Path, tmp_path: Path, rare: str) -> None:
    if rare == "oov":
        prepare_custom(raw, tmp_path / "out", categorical=("city",), min_count={"item": 9, "city": 40})
    folder = hashed if rare == "hash" else tmp_path / "out"
    schema, decoded = Schema.load(folder), read_decoded(folder)
    for name, least in (("item_id", 9), ("city", 40), ("user_id", 1)):
        column = next(each for each in schema.categorical if each.name == name)
        counts = Counter(row[name] for row in decoded["train"])
        kept = sorted(key for key, count in counts.items() if count >= least and key is not None)
        kept += [None] if counts[None] >= least else []
        ids = pq.read_table(folder / "ids" / f"{name}.parquet").to_pydict()
        assert ids["original_id"][: column.num_seen] == kept
        texts = ["" if key is None else str(key) for key in ids["original_id"]]
        if least > 1:
            low = {key: count for key, count in counts.items() if count < least}
            report = Report.load(folder).rare[name]
            assert (report["ids"], report["rows"]) == (len(low), sum(low.values()))
        if column.buckets:
            expected = [i if i < len(kept) else len(kept) + bucket(text) for i, text in enumerate(texts)]
            assert ids["row"] == expected
            used = Counter(bucket("" if key is None else str(key)) for key in low)
            assert report["used"] == len(used)
            assert report["collisions"] == sum(count for count in used.values() if count > 1)
        else:
            expected = [min(i, len(kept)) for i in range(column.num_ids)]
        assert column.num_rows == len(kept) + max(1, column.buckets)
        stored = {key: i for i, key in enumerate(ids["original_id"])}
        [batch] = build_loader(folder, schema, "test", 10_000)
        assert batch.ids[name].values().tolist() == [expected[stored[row[name]]] for row in decoded["test"]]
        occurrences = Counter(expected[stored[row[name]]] for row in decoded["train"])
        assert row_counts(folder, schema)[name].tolist() == [occurrences[i] for i in range(column.num_rows)]
    positives = Counter(row["item_id"] for row in decoded["train"] if row["label"])
    items = pq.read_table(folder / "ids" / "item_id.parquet")["original_id"].to_pylist()
    best = [items[i] for i in most_frequent(folder, schema, 3)]
    assert [positives[item] for item in best] == [count for _, count in positives.most_common(3)]


def test_buckets_of_text_are_documented() -> None:
    assert buckets_of(["17", None, "ä"], BUCKETS).tolist() == [bucket("17"), bucket(""), bucket("ä")]


def test_an_unknown_id_is_scored_with_the_row_of_its_bucket(hashed: Path, tmp_path: Path) -> None:
    train(small_run(hashed, tmp_path / "run", "trainer.epochs=1", "embeddings.init_std=0.5"))
    evaluate_run([f"run={tmp_path / 'run'}", "device=cpu", "save_predictions=true"])
    table = pq.read_table(tmp_path / "run" / "predictions_test")
    decoded, run = read_decoded(hashed)["test"], Run(tmp_path / "run")
    users, items = table["user"].to_pylist(), table["item"].to_pylist()
    scores = run.score(users, items, columns={"city": [row["city"] for row in decoded]})
    np.testing.assert_allclose(scores, table["score"].to_numpy(), rtol=1e-5)
    seen = Schema.load(hashed).entity("item").num_seen
    rare = run.session.items.original[seen:].to_pylist()
    new = next(number for number in range(10**6, 10**7) if bucket(str(number)) == bucket(str(rare[0])))
    one, other = run.score([users[0]] * 2, [rare[0], new], columns={"city": ["c1", "c1"]})
    assert one == other
    with pytest.raises(
        ConfigError, match="users: 1 of 2 ids were not in the training split, or are too rare there, such as 999"
    ):
        run.score([users[0], 999], [new, new], columns={"city": ["never seen", "c1"]})


def test_rare_ids_are_scored_with_the_row_that_they_trained(raw: Path, tmp_path: Path) -> None:
    prepare_custom(raw, tmp_path / "out", min_count={"item": 9})
    train(small_run(tmp_path / "out", tmp_path / "run", "trainer.epochs=1", "embeddings.init_std=0.5"))
    evaluate_run([f"run={tmp_path / 'run'}", "device=cpu", "save_predictions=true"])
    table, run = pq.read_table(tmp_path / "run" / "predictions_test"), Run(tmp_path / "run")
    users, items = table["user"].to_pylist(), table["item"].to_pylist()
    expected = table["score"].to_numpy()
    np.testing.assert_allclose(run.score(users, items, unknown="oov_row"), expected, rtol=1e-5)
    with pytest.raises(
        ConfigError, match=r"items: \d+ of \d+ ids were not in the training split, or are too rare there"
    ):
        run.score(users, items)
    with pytest.raises(ConfigError, match=r"has neither codes for unseen users nor users rarer than data\.min_count"):
        run.score([*users, 10**6], [*items, items[0]], unknown="oov_row")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rare": "hash"}, "data.rare = hash: needs data.min_count"),
        ({"min_count": {"town": 3}}, "data.min_count: 'town' is no column of ids; allowed: user, item"),
        ({"min_count": 1}, "data.min_count = 1: leaves every id of training its row"),
        (
            {"min_count": 10**6},
            "data.min_count = 1000000: no id of user_id has so many training rows; the most frequent",
        ),
        ({"min_count": 2, "hash_buckets": 10}, "data.hash_buckets = 10: does nothing without data.rare=hash"),
        ({"min_count": 2, "implicit": True}, "data.min_count = 2: implicit feedback has data.core"),
    ],
)
def test_settings_that_do_not_fit_are_refused(raw: Path, tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        prepare_custom(raw, tmp_path / "out", **settings)


@pytest.mark.parametrize("rare", ["oov", "hash"])
def test_rows_that_rare_ids_train_do_not_become_the_mean_of_codes(
    raw: Path, hashed: Path, tmp_path: Path, rare: str
) -> None:
    if rare == "oov":
        prepare_custom(raw, tmp_path / "out", min_count={"item": 9})
    folder = hashed if rare == "hash" else tmp_path / "out"
    config, _ = load_run_config(small_run(folder, "unused", *COVE, "embeddings.unseen=codes"))
    with pytest.raises(
        ConfigError, match=r"embeddings\.unseen = codes: ids of item_id that are rarer than data\.min_count"
    ):
        check_unseen(config, Schema.load(folder))
