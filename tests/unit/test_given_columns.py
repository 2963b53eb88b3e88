"""Values of further columns, as they are given from Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cove_dist.errors import ConfigError
from cove_dist.inference.context import encode_context
from cove_dist.inference.ids import IdTables
from cove_dist.tasks.inference import ContextFeatures
from data_pipeline.id_tables import id_table_path
from data_pipeline.schema import Categorical, Dense, Schema

COLUMNS = (
    Categorical("user_id", 2, 2, "user"),
    Categorical("item_id", 2, 2, "item"),
    Categorical("tags", 3, 3, sequence=True, max_length=2),
)
SCHEMA = Schema("few", "label", COLUMNS, (Dense("price", 0.0, 1.0),), {}, list_separator="|")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = id_table_path(tmp_path, "tags")
    path.parent.mkdir(parents=True)
    pq.write_table(pa.table({"id": [0, 1, 2], "original_id": ["a", "b", "c"]}), path)
    return tmp_path


def encoded(folder: Path, **columns: Any) -> ContextFeatures:
    given = {"tags": [["a"], []], "price": [1.0, 2.0]} | columns
    return encode_context(IdTables(folder), SCHEMA, ["tags", "price"], given, 2, np.array([True, True]))


@pytest.mark.parametrize(
    "tags",
    [
        [["c", "a", "b"], []],
        ["c|a|b", ""],
        ['["c", "a", "b"]', None],
        [("c", "a", "b"), ()],
        pa.array([["c", "a", "b"], None]),
        pa.chunked_array([[["x"], ["c", "a", "b"], []]])[1:],
    ],
)
def test_lists_have_the_forms_of_the_raw_data_and_their_last_entries_count(folder: Path, tags: Any) -> None:
    found = encoded(folder, tags=tags).lists["tags"]
    assert found.ids.tolist() == [0, 1]
    assert found.lengths.tolist() == [2, 0]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"tags": [[["a"]], []]}, r"columns: tags: the entry \['a'\] is no id; give a list of ids for every row"),
        ({"tags": [1.5, []]}, "columns: tags: 1.5 is no list"),
        ({"tags": pa.array([[["a"]], []])}, r"columns: tags: the entry \['a'\] is no id; give a list of ids"),
        ({"tags": ["a", "c||a|b"]}, "columns: tags: row 2 has a list with an empty entry, which preparation refuses"),
        ({"tags": [["a", ""], []]}, "columns: tags: row 1 has a list with an empty entry"),
        ({"tags": pa.array([["a"], ["b", None, "c"]])}, "columns: tags: row 2 has a list with an empty entry"),
        ({"tags": pa.array([[], ["", "b", "c"]])}, "columns: tags: row 2 has a list with an empty entry"),
        ({"tags": [[]]}, "columns: tags has 1 values, for 2 rows"),
        ({"price": ["cheap", 2.0]}, "columns: price needs a number for every row: .*cheap"),
        ({"price": [[1.0], 2.0]}, "columns: price needs a number for every row"),
        ({"price": [np.nan, 2.0]}, "columns: price: a value is missing, not finite"),
    ],
)
def test_values_of_another_kind_are_refused_by_column(folder: Path, columns: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        encoded(folder, **columns)
