"""Implicit feedback: positives, core, leave-one-out, histories, candidates."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.amazon_book import AmazonBook
from data_pipeline.datasets.amazon_reviews import AmazonReviews
from data_pipeline.datasets.toys import Toys
from data_pipeline.datasets.user_lines import UserLines
from data_pipeline.errors import DataError
from data_pipeline.history import History
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from data_pipeline.schema import SPLITS, Schema
from data_pipeline.streaming.blocks import Rows
from data_pipeline.streaming.draws import Draws
from data_pipeline.streaming.transforms import DrawEdges
from tests.interactions import prepare_small
from tests.unit.data.prepare_helpers import pairs, prepare_custom, read_decoded, read_split, write_csv

IMPLICIT = {"label": None, "candidates": 4}


def interactions(seed: int = 0, users: int = 30, items: int = 40, rows: int = 400) -> list[tuple[int, int, int, int]]:
    """Make (user, item, label, time) with some repeated pairs."""
    rng = np.random.default_rng(seed)
    return [
        (int(u), int(i), int(t) % 2, int(t)) for t, (u, i) in enumerate(rng.integers((users, items), size=(rows, 2)))
    ]


def core_by_hand(rows: list[tuple[int, int]], core: int) -> set[tuple[int, int]]:
    kept = set(rows)
    while True:
        users, items = Counter(u for u, _ in kept), Counter(i for _, i in kept)
        fewer = {(u, i) for u, i in kept if users[u] >= core and items[i] >= core}
        if fewer == kept:
            return kept
        kept = fewer


def test_pairs_are_kept_once_and_the_core_equals_that_of_a_plain_loop(tmp_path: Path) -> None:
    rows = interactions()
    source = write_csv(tmp_path / "raw.csv", rows)
    prepare_custom(source, tmp_path / "out", core=7, **IMPLICIT)
    found = [pair for split in read_decoded(tmp_path / "out").values() for pair in pairs(split)]
    expected = core_by_hand([row[:2] for row in rows], 7)
    assert 0 < len(expected) < len({row[:2] for row in rows})
    assert sorted(found) == sorted(expected)
    report = Report.load(tmp_path / "out")
    assert report.rows_dropped["repeated user-item pair"] == len(rows) - len({row[:2] for row in rows})
    assert report.rows_read == len(rows)


def test_ratings_become_positives(tmp_path: Path) -> None:
    rows = interactions()
    source = write_csv(tmp_path / "raw.csv", rows)
    schema = prepare_custom(source, tmp_path / "out", implicit=True, candidates=4)
    found = [pair for split in read_decoded(tmp_path / "out").values() for pair in pairs(split)]
    assert sorted(found) == sorted({row[:2] for row in rows if row[2] == 1})
    assert schema.implicit


def test_the_last_by_time_is_test_and_the_one_before_validation(tmp_path: Path) -> None:
    rows = [
        (user, 10 * user + step, 1, 100 - step)
        for user, count in ((1, 5), (2, 3), (3, 2), (4, 1))
        for step in range(count)
    ]
    source = write_csv(tmp_path / "raw.csv", rows)
    prepare_custom(source, tmp_path / "out", **IMPLICIT)
    decoded = read_decoded(tmp_path / "out")
    assert sorted(pairs(decoded["test"])) == [(1, 10), (2, 20), (3, 30)]
    assert sorted(pairs(decoded["validation"])) == [(1, 11), (2, 21)]
    assert sorted(pairs(decoded["train"])) == [(1, 12), (1, 13), (1, 14), (2, 22), (3, 31), (4, 40)]


def test_without_time_only_the_seed_decides_which_row_is_left_out(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "raw.csv", interactions())
    tests = []
    for output, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare_custom(source, tmp_path / output, seed=seed, time=None, **IMPLICIT)
        tests.append(read_split(tmp_path / output, "test"))
    assert tests[0] == tests[1]
    assert tests[0] != tests[2]
    assert max(Counter(row["user_id"] for row in tests[0]).values()) == 1


def test_candidates_are_the_item_and_items_outside_the_history(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "raw.csv", interactions())
    schema = prepare_custom(source, tmp_path / "out", label=None, candidates=15)
    had = {pair for split in SPLITS for pair in pairs(read_split(tmp_path / "out", split))}
    for split in ("validation", "test"):
        for row in read_split(tmp_path / "out", split):
            item, *others = row["candidates"]
            assert item == row["item_id"]
            assert len(set(others)) == 15
            assert all(0 <= other < schema.entity("item").num_ids for other in others)
            assert not had & {(row["user_id"], other) for other in others}
    assert "candidates" not in read_split(tmp_path / "out", "train")[0]


def test_too_few_items_for_the_candidates_are_refused(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "raw.csv", interactions())
    with pytest.raises(DataError, match=r"user \d+ .* \d+ of the 40 items.*39 other candidates.*data\.candidates"):
        prepare_custom(source, tmp_path / "out", label=None, candidates=39)


def test_histories_list_the_items_of_every_user(tmp_path: Path) -> None:
    source = write_csv(tmp_path / "raw.csv", interactions())
    schema = prepare_custom(source, tmp_path / "out", **IMPLICIT)
    for split in SPLITS:
        history = History.load(tmp_path / "out", split)
        assert len(history) == schema.entity("user").num_ids
        users, items = history.of(np.arange(len(history)))
        assert list(zip(users, items, strict=True)) == sorted(pairs(read_split(tmp_path / "out", split)))


def test_data_with_labels_have_no_histories(tmp_path: Path) -> None:
    prepare_custom(write_csv(tmp_path / "raw.csv", interactions()), tmp_path / "out")
    with pytest.raises(DataError, match=r"no interaction histories.*data\.implicit=true"):
        History.load(tmp_path / "out", "train")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": None, "implicit": False}, r"data\.implicit = false: the data have no labels"),
        ({"core": 5}, r"data\.core = 5: only for implicit feedback"),
        ({"label": None, "core": 50}, r"no rows are left.*smaller data\.core"),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    source = write_csv(tmp_path / "raw.csv", interactions())
    with pytest.raises(DataError, match=message):
        prepare_custom(source, tmp_path / "out", **settings)


def test_toys_reads_lines_in_order_and_attributes(tmp_path: Path) -> None:
    (tmp_path / "Toys_and_Games.txt").write_text("7 3 1 2\n8 1 2\n9 2 3 1 4\n")
    (tmp_path / "Toys_and_Games_item2attributes.json").write_text(json.dumps({"1": [5, 6], "2": [6], "3": []}))
    prepare(Toys(source=str(tmp_path), candidates=0), tmp_path / "out", name="toys")
    decoded = read_decoded(tmp_path / "out")
    assert sorted(pairs(decoded["test"])) == [(7, 2), (8, 2), (9, 4)]
    assert sorted(pairs(decoded["validation"])) == [(7, 1), (9, 1)]
    known = pq.read_table(tmp_path / "out" / "categories" / "item_id.parquet").to_pylist()
    assert {row["original_id"]: row["attribute"] for row in known} == {1: ["5", "6"], 2: ["6"], 3: []}


def test_attributes_become_edges_of_the_items_seen_in_training(tmp_path: Path) -> None:
    schema = Schema.load(prepare_small(tmp_path))
    names = pq.read_table(tmp_path / "data" / "ids" / "attributes.parquet").to_pylist()
    assert schema.attributes == {"attribute": len(names)}
    edges = History.load(tmp_path / "data", "attributes")
    assert len(edges) == schema.entity("item").num_seen
    items, attributes = edges.of(np.arange(len(edges)))
    known = pq.read_table(tmp_path / "data" / "categories" / "item_id.parquet").to_pylist()
    expected = {(row["id"], value) for row in known if row["id"] < len(edges) for value in row["attribute"]}
    assert {(item, names[a]["original_id"]) for item, a in zip(items, attributes, strict=True)} == expected
    assert all(row["kind"] == "attribute" and row["id"] == place for place, row in enumerate(names))


def test_edges_are_drawn_from_the_graph_and_false_ones_are_not_in_it(tmp_path: Path) -> None:
    schema = Schema.load(prepare_small(tmp_path))
    edges = History.load(tmp_path / "data", "attributes")
    draw = DrawEdges(schema.entity("item"), edges, sum(schema.attributes.values()))
    rows = Rows(np.zeros((2, 3000), np.int64), [], np.empty((3000, 0), np.float32), np.ones(3000, np.float32))
    (heads, _), (tails, _), (others, _) = draw(rows, Draws(0, 0, 0))
    assert edges.contains(heads, tails[:, None]).all()
    assert not edges.contains(heads, others[:, None]).any()
    assert len(set(zip(heads, tails, strict=True))) == len(edges.items)


def test_the_error_of_invalid_toys_attributes_names_the_item(tmp_path: Path) -> None:
    (tmp_path / "Toys_and_Games.txt").write_text("7 3 1 2\n")
    (tmp_path / "Toys_and_Games_item2attributes.json").write_text('{"1": 5}')
    with pytest.raises(DataError, match=r"item2attributes.json: expected an object.*'1': 5"):
        prepare(Toys(source=str(tmp_path)), tmp_path / "out", name="toys")


def test_amazon_book_keeps_its_split_and_takes_validation_rows_by_rule(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0 1 2 3\n1 4\n2 1 4\n3 2\n")
    (tmp_path / "test.txt").write_text("0 4 5\n1 1\n2 \n3\n")
    given = AmazonBook(source=str(tmp_path), candidates=0)
    prepare(replace(given, validation="leave_one_out"), tmp_path / "out", name="amazon_book")
    decoded = read_decoded(tmp_path / "out")
    assert sorted(pairs(decoded["test"])) == [(0, 4), (0, 5), (1, 1)]
    assert [row["user_id"] for row in decoded["validation"]] == [0, 2]
    training = sorted(pairs(decoded["train"]) + pairs(decoded["validation"]))
    assert training == [(0, 1), (0, 2), (0, 3), (1, 4), (2, 1), (2, 4), (3, 2)]
    prepare(given, tmp_path / "none", name="amazon_book")
    assert sorted(pairs(read_decoded(tmp_path / "none")["train"])) == training
    assert Report.load(tmp_path / "none").rows == {"train": 7, "test": 3}


def test_files_with_a_line_per_user_are_read_as_one(tmp_path: Path) -> None:
    """In order, the last item of a line is left out for test; without an order, a drawn one."""
    (tmp_path / "a.txt").write_text("".join(f"u{u} 1 2 3 4 5 6\n" for u in range(30)))
    (tmp_path / "b.txt").write_text("v 5 4 3\nw 2 1 6\n")
    for ordered in (True, False):
        source = UserLines(file=str(tmp_path / "*.txt"), ordered=ordered, candidates=0)
        prepare(source, tmp_path / f"out_{ordered}", name="user_lines")
    decoded = {ordered: read_decoded(tmp_path / f"out_{ordered}") for ordered in (True, False)}
    last = dict(pairs(decoded[True]["test"]))
    assert last == {f"u{u}": 6 for u in range(30)} | {"v": 3, "w": 6}
    assert len({item for _, item in pairs(decoded[False]["test"])}) > 3
    everything = [sorted(pair for split in rows.values() for pair in pairs(split)) for rows in decoded.values()]
    assert everything[0] == everything[1] and len(everything[0]) == 186


def write_reviews(folder: Path, meta: str) -> Path:
    reviews = [(f"U{u}", f"I{i}", 1000 + (3 * u + 5 * i) % 17) for u in range(4) for i in range(5)]
    lines = [json.dumps({"reviewerID": u, "asin": i, "overall": 5.0, "unixReviewTime": t}) for u, i, t in reviews]
    path = folder / "reviews_Toys_5.json.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    (folder / "meta_Toys.json.gz").write_bytes(gzip.compress(meta.encode()))
    return path


def test_amazon_reviews_and_metadata_are_read(tmp_path: Path) -> None:
    meta = "{'asin': 'I1', 'categories': [['Toys', 'Games'], ['Toys', \"Kids' toys\"]], 'brand': 'B'}\n{'asin': 'I2'}\n"
    path = write_reviews(tmp_path, meta)
    schema = prepare(AmazonReviews(source=str(path), candidates=0, core=4), tmp_path / "out", name="amazon_reviews")
    assert (schema.entity("user").num_ids, schema.entity("item").num_ids) == (4, 5)
    [known] = pq.read_table(tmp_path / "out" / "categories" / "item_id.parquet").to_pylist()
    assert (known["original_id"], known["category"], known["brand"]) == ("I1", ["Toys", "Games", "Kids' toys"], "B")
    test = {row["user_id"]: row["item_id"] for row in read_decoded(tmp_path / "out")["test"]}
    assert test["U0"] == "I3"  # times 1000, 1005, 1010, 1015, 1003


def test_an_item_in_several_lines_of_amazon_metadata_has_the_first_category_and_brand(tmp_path: Path) -> None:
    items = [f"{{'asin': 'I{k % 5}', 'categories': [['c{k}']], 'brand': '{'' if k < 5 else k}'}}" for k in range(20)]
    path = write_reviews(tmp_path, "\n".join(items) + "\n")
    prepare(AmazonReviews(source=str(path), candidates=0, core=4), tmp_path / "out", name="amazon_reviews")
    known = pq.read_table(tmp_path / "out" / "categories" / "item_id.parquet").to_pylist()
    assert {row["original_id"]: (row["category"], row["brand"]) for row in known} == {
        f"I{k}": ([f"c{k}"], str(k + 5)) for k in range(5)
    }


def test_lines_of_amazon_reviews_that_cannot_be_read_are_refused_or_counted(tmp_path: Path) -> None:
    path = write_reviews(tmp_path, "{'asin': 'I1'}\n")
    whole = prepare(AmazonReviews(source=str(path), candidates=0), tmp_path / "whole", name="amazon_reviews")
    lines = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(f'{{"reviewerID": "U9",\n{lines}\nno JSON\n'.encode()))
    with pytest.raises(DataError, match=r"reviews_Toys_5\.json\.gz: cannot be read"):
        prepare(AmazonReviews(source=str(path), candidates=0), tmp_path / "out", name="amazon_reviews")
    dropping = AmazonReviews(source=str(path), candidates=0, on_invalid="drop")
    schema = prepare(dropping, tmp_path / "out", name="amazon_reviews")
    assert {name: split.rows for name, split in schema.splits.items()} == {
        name: split.rows for name, split in whole.splits.items()
    }
    assert sum(Report.load(tmp_path / "out").rows_dropped.values()) == 2


def test_code_in_amazon_metadata_is_not_run(tmp_path: Path) -> None:
    path = write_reviews(tmp_path, "{'asin': 'I1'}\n__import__('os').abort()\n")
    with pytest.raises(DataError, match=r"meta_Toys.json.gz: line 2: not a Python literal"):
        prepare(AmazonReviews(source=str(path), candidates=0), tmp_path / "out", name="amazon_reviews")
