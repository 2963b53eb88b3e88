"""MIND-small from small raw files, compared with a plain reading of them."""

from __future__ import annotations

import random
import zipfile
from collections import Counter
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.mind import MINDSmall
from data_pipeline.errors import DataError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from tests.unit.data.prepare_helpers import read_decoded

CATEGORIES = ("news", "sports", "lifestyle")


def news_line(item: int, suffix: str = "") -> str:
    category = CATEGORIES[item % 3]
    fields = (f"N{item}", category + suffix, f"{category}{item % 7}", '"A title', "", "https://x.org", "[]", "[]")
    return "\t".join(fields)


def behavior_lines(rng: random.Random, users: range, day: int, count: int) -> list[str]:
    """Make impressions of these users; the history of a user is the same in a file and may be empty."""
    histories = {user: [f"N{rng.randrange(40)}" for _ in range(rng.randrange(6))] for user in users}
    lines = []
    for number in range(1, count + 1):
        user = rng.choice(users)
        hour = rng.randrange(24)
        time = f"11/{day}/2019 {hour % 12 or 12}:{rng.randrange(60):02}:05 {'AM' if hour < 12 else 'PM'}"
        shown = " ".join(f"N{rng.randrange(60)}-{rng.randrange(2)}" for _ in range(rng.randrange(1, 6)))
        lines.append(f"{number}\tU{user}\t{time}\t{' '.join(histories[user])}\t{shown}")
    return lines


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Users 15 to 19 and news 30 to 49 are in both releases."""
    rng = random.Random(0)
    for part, users, day, news in (("train", range(20), 11, range(50)), ("dev", range(15, 40), 15, range(30, 59))):
        folder = tmp_path / "raw" / f"MINDsmall_{part}"
        folder.mkdir(parents=True)
        lines = behavior_lines(rng, users, day, count=80)
        (folder / "behaviors.tsv").write_text("\n".join(lines) + "\n")
        suffix = "" if part == "train" else "!"
        (folder / "news.tsv").write_text("\n".join(news_line(item, suffix) for item in news) + "\n")
    return tmp_path / "raw"


def plain_rows(raw: Path) -> tuple[Counter, Counter]:
    """Count the expected (user, item, label) of training, and of validation and test."""
    shown: dict[str, Counter] = {"train": Counter(), "dev": Counter()}
    clicked_before = set()
    for part, rows in shown.items():
        for line in (raw / f"MINDsmall_{part}" / "behaviors.tsv").read_text().splitlines():
            _, user, _, history, impressions = line.split("\t")
            clicked_before |= {(user, item) for item in history.split()}
            for entry in impressions.split():
                item, label = entry.split("-")
                rows[user, item, float(label)] += 1
    to_predict = {(user, item) for user, item, _ in shown["dev"]}
    histories = Counter({(user, item, 1.0): 1 for user, item in clicked_before - to_predict})
    assert clicked_before & to_predict  # or the data would not show that they are left out
    return shown["train"] + histories, shown["dev"]


def prepared(source: Path, output: Path, *, seed: int = 0, **settings) -> dict[str, list[dict]]:
    prepare(MINDSmall(source=str(source), **settings), output, name="mind_small", seed=seed)
    return read_decoded(output)


def counted(rows: list[dict]) -> Counter:
    return Counter((row["user_id"], row["item_id"], row["label"]) for row in rows)


def error(source: Path, **settings) -> str:
    with pytest.raises(DataError) as caught:
        prepared(source, source.parent / "out", **settings)
    assert not (source.parent / "out").exists()
    return str(caught.value)


def replace_line(file: Path, number: int, line: str) -> None:
    lines = file.read_text().splitlines()
    lines[number - 1] = line
    file.write_text("\n".join(lines) + "\n")


def test_shown_items_and_histories_become_rows(tmp_path, raw, caplog):
    rows = prepared(raw, tmp_path / "out")
    train, dev = plain_rows(raw)
    assert counted(rows["train"]) == train
    assert counted(rows["validation"]) + counted(rows["test"]) == dev
    report = Report.load(tmp_path / "out")
    assert report.samples == (train + dev).total()
    assert report.interactions == sum(count for (_, _, label), count in (train + dev).items() if label)
    assert report.split == "given"
    assert report.summary()["users"].endswith("; published: 94,057")
    assert f"{report.samples} samples instead of 9,993,270" in caplog.text


def test_a_user_of_dev_is_in_validation_or_in_test(tmp_path, raw):
    splits = {seed: prepared(raw, tmp_path / f"out{seed}", seed=seed) for seed in (0, 1)}
    users = {
        seed: {split: {row["user_id"] for row in rows[split]} for split in ("validation", "test")}
        for seed, rows in splits.items()
    }
    for parts in users.values():
        assert not parts["validation"] & parts["test"]
        assert len(parts["validation"]) > 5 and len(parts["test"]) > 5
    assert users[0] != users[1]
    fewer = prepared(raw, tmp_path / "fewer", ratios=(8, 1, 5))
    assert len({row["user_id"] for row in fewer["validation"]}) < len(users[0]["validation"])


def test_rows_of_a_user_are_in_order_of_time(tmp_path, raw):
    """12 AM comes before 1 AM, and 12 PM before 1 PM; ties and items of one impression keep the order of the file."""
    lines = [
        "1\tU1\t11/15/2019 1:00:00 PM\t\tN7-0",
        "2\tU1\t11/15/2019 12:30:00 PM\t\tN6-0 N5-0",
        "3\tU1\t11/15/2019 1:00:00 AM\t\tN4-0 N8-1 N4-1",
        "4\tU1\t11/15/2019 12:30:00 AM\t\tN3-0",
        "5\tU2\t11/15/2019 12:30:00 AM\t\tN3-0",
        "6\tU3\t11/15/2019 12:30:00 AM\t\tN3-0",
        "7\tU4\t11/15/2019 12:30:00 AM\t\tN3-0",
        "8\tU5\t11/15/2019 12:30:00 AM\t\tN3-0",
    ]
    (raw / "MINDsmall_dev" / "behaviors.tsv").write_text("\n".join(lines) + "\n")
    rows = prepared(raw, tmp_path / "out")
    items = [row["item_id"] for row in rows["validation"] + rows["test"] if row["user_id"] == "U1"]
    assert items == ["N3", "N4", "N8", "N4", "N6", "N5", "N7"]


def test_categories_of_news_are_those_of_its_first_line(tmp_path, raw):
    prepared(raw, tmp_path / "out")
    ids = pq.read_table(tmp_path / "out/ids/item_id.parquet").to_pylist()
    known = {
        f"N{item}": (CATEGORIES[item % 3] + "!" * (item >= 50), f"{CATEGORIES[item % 3]}{item % 7}")
        for item in range(59)
    }
    expected = [
        {**row, "category": known[row["original_id"]][0], "subcategory": known[row["original_id"]][1]}
        for row in ids
        if row["original_id"] in known  # N59 is in no news file
    ]
    assert len(expected) < len(ids)
    assert pq.read_table(tmp_path / "out/categories/item_id.parquet").to_pylist() == expected


def test_impressions_of_one_release_are_split_by_time(tmp_path, raw):
    """The first 8 of 10 rows in time are training, by the rule of `SplitRule`; histories are training, whatever their
    impression; the release may be the source itself."""
    release = raw / "MINDsmall_train"
    (raw / "MINDsmall_dev").rename(tmp_path / "elsewhere")
    rows = prepared(raw, tmp_path / "out", split="time")
    shown, histories = [], set()
    for line in (release / "behaviors.tsv").read_text().splitlines():
        _, user, time, history, impressions = line.split("\t")
        histories |= {(user, item) for item in history.split()}
        moment = datetime.strptime(time, "%m/%d/%Y %I:%M:%S %p")
        shown += [(moment, user, *entry.split("-")) for entry in impressions.split()]
    expected: dict[str, Counter] = {"train": Counter(), "validation": Counter(), "test": Counter()}
    for moment, user, item, label in shown:
        share = sum(other[0] < moment for other in shown) / len(shown)
        split = "test" if share >= 0.9 else "validation" if share >= 0.8 else "train"
        expected[split][user, item, float(label)] += 1
    predicted = {(user, item) for split in ("validation", "test") for user, item, _ in expected[split]}
    assert histories & predicted  # or the data would not show that they are left out
    expected["train"] += Counter({(user, item, 1.0): 1 for user, item in histories - predicted})
    assert {split: counted(of_split) for split, of_split in rows.items()} == expected
    report = Report.load(tmp_path / "out")
    assert (report.split, report.validation) == ("time", "split")
    assert prepared(release, tmp_path / "itself", split="time") == rows


@pytest.mark.parametrize("split", ["user_time", "random", "leave_one_out"])
def test_splits_that_would_predict_histories_are_refused(raw, split):
    message = error(raw, split=split)
    assert message.startswith(f"data.split = {split}: the pairs of the interaction histories")


def test_zips_give_the_same_rows_as_folders(tmp_path, raw):
    plain = prepared(raw, tmp_path / "plain")
    (tmp_path / "zipped").mkdir()
    for part, inner in (("train", ""), ("dev", "MINDsmall_dev/")):
        with zipfile.ZipFile(tmp_path / "zipped" / f"MINDsmall_{part}.zip", "w") as archive:
            for file in (raw / f"MINDsmall_{part}").iterdir():
                archive.write(file, inner + file.name)
    assert prepared(tmp_path / "zipped", tmp_path / "out") == plain


def test_a_missing_file_is_named(tmp_path, raw):
    assert "nowhere: no such folder. Download MINDsmall_train.zip" in error(tmp_path / "nowhere")
    (raw / "MINDsmall_dev" / "news.tsv").unlink()
    assert "MINDsmall_dev: contains no folder with behaviors.tsv and news.tsv" in error(raw)
    (raw / "MINDsmall_dev").rename(tmp_path / "elsewhere")
    message = error(raw)
    assert "contains no MINDsmall_dev.zip and no folder whose name ends in dev" in message
    assert "data.split=time" in message


def test_invalid_values_are_refused_by_line_or_dropped_and_counted(tmp_path, raw):
    file = raw / "MINDsmall_dev" / "behaviors.tsv"
    lines = file.read_text().splitlines()
    lines[8:13] = [
        "9\tU1\t11/13/2019 8:36:57 AM\tN1\tN2-0 N3 N4-1 N5-2",
        "10\tU1\t11/13/2019 8:36:57 AM\tN1\t",
        "11\tU77\t13/11/2019 8:36:57 AM\tN1\tN2-0 N3-1",  # with its history, three rows
        "12\tU1\t\t\tN2-0 N3-1",
        "13\t\t11/13/2019 8:36:57 AM\tN1\tN2-0 N3-1",
    ]
    file.write_text("\n".join(lines) + "\n")
    hint = "Correct it, or leave such rows out, counted in report.json: data.on_invalid=drop"
    reasons = {
        "impressions: an item shown is not of the form N123-1 or N123-0": (3, "'N3'", 9),
        "time: time is not of the form 11/11/2019 9:05:58 AM": (5, "'13/11/2019 8:36:57 AM'", 11),
        "user_id: null or empty id": (3, "None", 13),
    }
    expected = []
    for reason, (count, value, line) in reasons.items():
        column, _, words = reason.partition(": ")
        expected.append(f"{file}: column {column!r}: {words} in {count} rows, first {value} in data row {line}. {hint}")
    assert error(raw).splitlines() == expected
    prepared(raw, tmp_path / "out", on_invalid="drop")
    assert Report.load(tmp_path / "out").rows_dropped == {reason: count for reason, (count, _, _) in reasons.items()}


@pytest.mark.parametrize("file", ["behaviors.tsv", "news.tsv"])
def test_lines_with_another_number_of_fields(tmp_path, raw, file):
    path = raw / "MINDsmall_train" / file
    replace_line(path, 3, "3\tU1")
    message = error(raw)
    assert message.startswith(f"{path}: cannot be read") and "Line: 3" in message
    prepared(raw, tmp_path / "out", on_invalid="drop")
    report = Report.load(tmp_path / "out")
    if file == "behaviors.tsv":
        assert (report.rows_dropped, report.warnings) == ({"malformed CSV line": 1}, [])
    else:  # whose lines are no rows
        assert (report.rows_dropped, report.rows_read) == ({}, report.samples)
        assert report.warnings == [f"{path}: 1 malformed lines were left out of the news"]


@pytest.mark.parametrize("settings", [{"ratios": (8, 1, 5)}, {"ratios": (6, 2, 2), "split": "time"}])
def test_ratios_divide_the_users_of_dev_or_the_impressions(tmp_path, raw, settings):
    assert MINDSmall(source=str(raw), **settings).split_rule.ratios == settings["ratios"]


def test_histories_as_a_column_are_the_last_clicks_and_add_no_rows(tmp_path, raw, caplog):
    rows = prepared(raw, tmp_path / "out", history=3)
    found = Counter(
        (row["user_id"], row["item_id"], row["label"], tuple(row["history"])) for part in rows.values() for row in part
    )
    expected = Counter()
    for line in [line for file in raw.glob("*/behaviors.tsv") for line in file.read_text().splitlines()]:
        _, user, _, history, impressions = line.split("\t")
        for item, label in (entry.split("-") for entry in impressions.split()):
            expected[user, item, float(label), tuple(history.split()[-3:])] += 1
    assert found == expected
    assert {row["user_id"] for row in prepared(raw, tmp_path / "by_user", history=3, split="user_time")["test"]}
    assert "published" not in caplog.text
    with pytest.raises(DataError, match=r"columns of lists \(history\) are fields of click-through rate models"):
        prepared(raw, tmp_path / "implicit", history=3, implicit=True)
