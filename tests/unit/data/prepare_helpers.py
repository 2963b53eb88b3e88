"""Write, prepare and read back small raw files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.datasets.custom import Custom
from data_pipeline.preparation.prepare import prepare
from data_pipeline.schema import Schema

NAMES = ("user", "item", "label", "time")


def write_csv(path: Path, rows: Iterable[Sequence[Any]], names: Sequence[str] = NAMES, delimiter: str = ",") -> Path:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(names)
        writer.writerows(rows)
    return path


def write_parquet(path: Path, columns: Mapping[str, Any]) -> Path:
    pq.write_table(pa.table(dict(columns)), path)
    return path


def some_rows(users: int = 5, per_user: int = 20) -> list[tuple[int, int, int, int]]:
    """Make (user, item, label, time), newest first, users interleaved; ids are not 0, 1, ….

    The last item of every user is in no other row.
    """
    return [
        (10 + user, 100 + step if step < per_user - 1 else 200 + user, (user + step) % 2, step)
        for step in reversed(range(per_user))
        for user in range(users)
    ]


def prepare_custom(source: Path, output: Path, *, seed: int = 0, overwrite: bool = False, **settings: Any) -> Schema:
    """Prepare files whose columns are named as in `NAMES`, except those in ``settings``."""
    columns = {"user": "user", "item": "item", "label": "label", "time": "time"} | settings
    return prepare(Custom(source=str(source), **columns), output, name="small", seed=seed, overwrite=overwrite)


def read_split(folder: Path, split: str) -> list[dict[str, Any]]:
    files = Schema.load(folder).splits[split].files
    return pa.concat_tables([pq.read_table(folder / file) for file in files]).to_pylist()


def read_decoded(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the rows of every split with original ids."""
    schema = Schema.load(folder)
    originals = {}
    for column in schema.categorical:
        ids = pq.read_table(folder / "ids" / f"{column.table_name}.parquet").to_pydict()
        assert ids["id"] == list(range(column.num_ids))
        originals[column.name] = ids["original_id"]

    def decoded(value: Any, ids: list[Any]) -> Any:
        return [ids[each] for each in value] if isinstance(value, list) else ids[value]

    return {
        split: [
            row | {name: decoded(row[name], ids) for name, ids in originals.items()}
            for row in read_split(folder, split)
        ]
        for split in schema.splits
    }


def pairs(rows: Iterable[Mapping[str, Any]]) -> list[tuple[Any, Any]]:
    return [(row["user_id"], row["item_id"]) for row in rows]
