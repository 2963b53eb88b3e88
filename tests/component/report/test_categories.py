"""Categories of every form compared with codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cove_dist.report.agreement import all_curves, compare, draw_coverage
from cove_dist.report.categories import Labelled, load_categories
from cove_dist.report.codes import EntityCodes
from cove_dist.report.run_folder import load_run
from data_pipeline.errors import DataError
from tests.component.report.runs import log, write_data, write_run

# Training saw items 10 to 15, in this order; the category file has others too, in its own.
LEVEL_1, LEVEL_2 = [0, 0, 1, 2, 2, 2], [0, 0, 0, 1, 1, 1]
CODES = EntityCodes("item", (3, 2), pa.array([13, 10, 11, 12, 14, 15]), np.array([LEVEL_1, LEVEL_2]).T)
KNOWN = [99, 10, 11, 12, 13, 14, 15]


def labelled(tmp_path: Path, **columns: object) -> list[Labelled]:
    table = pa.table({"id": range(len(KNOWN)), "original_id": KNOWN, **columns})
    run = load_run(write_run(tmp_path / "run", write_data(tmp_path / "data", table), log()))
    return load_categories(run, CODES)


def test_ids_that_are_large_text_among_the_codes(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", pa.table({"id": [0, 1], "original_id": ["v", "u"], "genre": ["a", "b"]}))
    codes = EntityCodes("item", (3,), pa.array(["u", "w"], pa.large_string()), np.array([[2], [1]]))
    [one] = load_categories(load_run(write_run(tmp_path / "run", data, log())), codes)
    assert pairs(one) == {((2,), "b")}


def pairs(one: Labelled) -> set[tuple[tuple[int, ...], str]]:
    """Memberships as (codes, name of the category)."""
    return {(tuple(one.codes[i].tolist()), one.names[c]) for i, c in zip(one.ids, one.categories, strict=True)}


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_one_text_category_an_id(tmp_path: Path, kind: pa.DataType) -> None:
    values = pa.array(["unseen", "b", "b", "a", None, "a", "a"], pa.string()).cast(kind)
    [one] = labelled(tmp_path, genre=values)
    assert (one.column, one.several, one.names) == ("genre", False, ("a", "b"))
    assert one.ids.tolist() == [0, 1, 2, 3, 4]  # item 13 has no category
    assert one.codes[:, 0].tolist() == [0, 1, 2, 2, 2]
    assert one.categories.tolist() == [1, 1, 0, 0, 0]


def test_whole_numbers_are_categories(tmp_path: Path) -> None:
    [one] = labelled(tmp_path, kind=[5, 7, 7, 7, 3, 3, 1])
    assert one.names == ("7", "3", "1")
    assert len(one.codes) == 6


@pytest.mark.parametrize("kind", [pa.list_(pa.string()), pa.large_list(pa.string())])
def test_several_categories_an_id(tmp_path: Path, kind: pa.DataType) -> None:
    values = [["x"], ["x", "y"], ["y"], ["x", "x", None], [], None, ["x"]]
    [one] = labelled(tmp_path, genres=pa.array(values, kind))
    assert one.several
    assert one.names == ("x", "y")
    assert pairs(one) == {((0, 0), "x"), ((0, 0), "y"), ((1, 0), "y"), ((2, 1), "x")}
    assert len(one.codes) == 4  # items 13 and 14 have none
    assert np.bincount(one.categories).tolist() == [3, 2]  # item 12 names x twice and counts once


def test_columns_without_a_known_item_are_left_out(tmp_path: Path) -> None:
    assert labelled(tmp_path, genre=["unseen", *[None] * 6]) == []


def test_data_without_categories(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", write_data(tmp_path / "data"), log()))
    assert load_categories(run, CODES) == []
    (tmp_path / "data" / "categories").mkdir()
    assert load_categories(run, CODES) == []


def test_a_column_that_holds_no_categories(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"item_id.parquet: column price is double: categories are integers, text, or"):
        labelled(tmp_path, price=[0.5] * 7)


def test_a_file_without_original_ids(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", pa.table({"id": [0], "genre": ["a"]}))
    run = load_run(write_run(tmp_path / "run", data, log()))
    with pytest.raises(DataError, match=r"item_id.parquet: no column original_id"):
        load_categories(run, CODES)


def test_agreement_of_one_category_an_id(tmp_path: Path) -> None:
    """Level 2 splits the items as the categories do; level 1 splits one category further."""
    [one] = labelled(tmp_path, genre=["unseen", "b", "b", "a", "b", "a", "a"])
    fine, coarse = compare(one, top_categories=2, shuffles=3, seed=0)
    assert coarse.mutual_information == pytest.approx(1)
    assert 0 < fine.mutual_information < 1
    assert coarse.covered.tolist() == [[1, 1], [1, 1]]
    assert fine.covered == pytest.approx(np.array([[1, 1, 1], [2 / 3, 1, 1]]))
    assert coarse.row()["area under the curves"] == 1 > coarse.row()["area, codes shuffled"]


def test_agreement_of_several_categories_an_id(tmp_path: Path) -> None:
    [one] = labelled(tmp_path, genres=[[], ["x", "y"], ["y"], ["x"], ["z"], [], ["x"]])
    [fine, _] = compare(one, top_categories=2, shuffles=3, seed=0)
    assert fine.mutual_information is None
    assert fine.names == ("x", "y")
    assert fine.covered == pytest.approx(np.array([[2 / 3, 1, 1], [1 / 2, 1, 1]]))
    assert fine.row()["categories"] == 3


def test_curves_as_a_tidy_table(tmp_path: Path) -> None:
    [one] = labelled(tmp_path, genre=["unseen", "b", "b", "a", "b", "a", "a"])
    table = all_curves(compare(one, top_categories=2, shuffles=3, seed=0))
    assert len(table) == 2 * 3 + 2 * 2
    row = {"entity": "item", "level": 1, "category_column": "genre", "category": "b", "codes_taken": 1}
    [found] = [r for r in table.to_pylist() if row.items() <= r.items()]
    assert found["covered"] == pytest.approx(2 / 3)
    assert 1 / 3 <= found["covered_shuffled_mean"] <= 1
    assert found.keys() - row.keys() == {"covered", "covered_shuffled_mean"}


def test_a_picture_of_names_that_are_no_file_names_nor_formulas(tmp_path: Path) -> None:
    [one] = labelled(tmp_path, **{"kind/of it": ["unseen", "_b", "_b", "$a^{$", "_b", "$a^{$", "a" * 99]})
    picture = draw_coverage(compare(one, top_categories=8, shuffles=3, seed=0), tmp_path, 3)
    assert picture.path == tmp_path / "coverage_item_kind%2Fof%20it.png"
    assert picture.path.read_bytes().startswith(b"\x89PNG")
    assert "6 items have both codes and a category" in picture.caption
