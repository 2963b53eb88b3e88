"""Attributes of items for graphs, from the categories that were written."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.history import History
from data_pipeline.preparation.attributes import write_attributes
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import Categorical

WORKSPACE = cast(Workspace, SimpleNamespace(warn=lambda message: None))
ITEMS = Categorical("item_id", num_ids=4, num_seen=3, role="item")  # items 0, 1 and 2
FILMS = {
    "id": [0, 1, 2, 3],
    "original_id": [50, 51, 52, 53],
    "genre": [["Drama"], ["Comedy", "Drama"], [], ["War"]],
    "title": ["Alien", "Brazil", "Chinatown", "Dune"],
}


def write(folder: Path, columns: dict[str, list]) -> dict[str, int]:
    (folder / "categories").mkdir()
    (folder / "ids").mkdir()
    pq.write_table(pa.table(columns), folder / "categories" / "item_id.parquet")
    return write_attributes(WORKSPACE, folder, ITEMS)


def test_titles_are_no_attributes(tmp_path: Path) -> None:
    assert write(tmp_path, FILMS | {"year": [1979, 1985, 1974, 1984]}) == {"genre": 2, "year": 3}
    names = pq.read_table(tmp_path / "ids" / "attributes.parquet").to_pylist()
    edges = History.load(tmp_path, "attributes")
    items, attributes = edges.of(np.arange(3))
    assert [(item, names[a]["original_id"]) for item, a in zip(items, attributes, strict=True)] == [
        (0, "Drama"), (0, "1979"), (1, "Comedy"), (1, "Drama"), (1, "1985"), (2, "1974"),
    ]  # fmt: skip


def test_titles_without_categories_give_no_attributes(tmp_path: Path) -> None:
    assert write(tmp_path, {name: FILMS[name] for name in ("id", "original_id", "title")}) == {}


def test_categories_of_unseen_items_only_give_no_attributes(tmp_path: Path) -> None:
    assert write(tmp_path, {name: values[3:] for name, values in FILMS.items()}) == {}
