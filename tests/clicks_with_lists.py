"""Small data of clicks with columns of lists: genres, and the items that a user clicked before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.datasets.custom import Custom
from data_pipeline.preparation.prepare import prepare

LONGEST = 4


def raw_clicks(rows: int = 900, users: int = 20, items: int = 30, seed: int = 0) -> pa.Table:
    """Make rows whose label depends on whether the item is like those clicked before; many lists are empty."""
    draw = np.random.default_rng(seed)
    clicked: list[list[int]] = [[] for _ in range(users)]
    columns: dict[str, list] = {name: [] for name in ("user", "item", "clicked", "genres", "before", "device", "price")}
    for _ in range(rows):
        user, item = int(draw.integers(users)), int(draw.integers(items))
        likes = bool(clicked[user]) and clicked[user][-1] % 2 == item % 2
        label = int(draw.random() < (0.8 if likes else 0.3))
        genres = draw.permutation(list("abcdef"))[: draw.integers(4)].tolist()
        values = (f"u{user}", item, label, genres, clicked[user][-LONGEST - 2 :], "xy"[draw.integers(2)], draw.random())
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
        if label:
            clicked[user] = [*clicked[user], item][-LONGEST - 2 :]
    return pa.table(columns | {"time": range(rows)})


def prepare_clicks(folder: Path, rows: int = 900) -> Path:
    """Prepare them; return the prepared folder. The raw file is next to it."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(raw_clicks(rows), folder / "raw.parquet")
    dataset = Custom(
        source=str(folder / "raw.parquet"),
        user="user",
        item="item",
        label="clicked",
        time="time",
        categorical=("device",),
        dense=("price",),
        lists=("genres", "before"),
        list_vocabularies={"before": "item"},
        list_length=LONGEST,
        split="time",
    )
    prepare(dataset, folder / "data", name="clicks")
    return folder / "data"
