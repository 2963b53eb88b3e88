"""Small prepared folders: Parquet files and ``schema.json``, as `data_pipeline` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate, cycle, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from data_pipeline.batch import Batch
from data_pipeline.schema import Categorical, Dense, Schema, Split

MEAN, STD = 5.0, 2.0


def interactions(rows: int, users: int, *, seed: int = 0) -> pa.Table:
    """Make rows of random users, sorted by user. The item of a row is its index, which identifies the row."""
    rng = np.random.default_rng(seed)
    return interactions_of(np.sort(rng.integers(0, users, rows)), seed=seed)


def interactions_of(users: Sequence[int] | np.ndarray, *, seed: int = 0) -> pa.Table:
    """Make one row per user: user, item (the index of the row), age (dense), history (0 to 4 items), label."""
    rng = np.random.default_rng(seed)
    rows = len(users)
    lengths = rng.integers(0, 5, rows)
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    return pa.table(
        {
            "user": np.asarray(users, np.int64),
            "item": np.arange(rows),
            "age": rng.normal(MEAN, STD, rows).astype(np.float32),
            "history": pa.ListArray.from_arrays(offsets, rng.integers(0, rows, offsets[-1])),
            "label": rng.integers(0, 2, rows).astype(np.float32),
        }
    )


def write_folder(
    folder: Path,
    splits: dict[str, pa.Table],
    *,
    group_rows: Sequence[int] = (64,),
    files: int | Sequence[int] = 2,
    num_seen: int | None = None,
    plain: bool = False,
) -> Schema:
    """Write a prepared folder and return its schema.

    Args:
        group_rows: rows of the row groups, over and over.
        files: files per split, of equal size, or the shares of their rows.
        num_seen: items of training; default: all.
        plain: leave ``age`` and ``history`` out of the schema.
    """
    num_users = 1 + max(table["user"].to_numpy().max(initial=0) for table in splits.values())
    num_items = max(1, *(len(table) for table in splits.values()))
    num_seen = num_items if num_seen is None else num_seen
    schema = Schema(
        name="fixture",
        label="label",
        categorical=(
            Categorical("user", int(num_users), int(num_users), role="user"),
            Categorical("history", num_items, num_seen, sequence=True, table="item"),
            Categorical("item", num_items, num_seen, role="item"),
        ),
        dense=(Dense("age", MEAN, STD),),
        splits={split: write_split(folder, split, table, group_rows, files) for split, table in splits.items()},
    )
    if plain:
        schema = replace(schema, categorical=(schema.categorical[0], schema.categorical[2]), dense=())
    schema.save(folder)
    return schema


def write_split(
    folder: Path, split: str, table: pa.Table, group_rows: Sequence[int], files: int | Sequence[int]
) -> Split:
    (folder / split).mkdir(parents=True, exist_ok=True)
    shares = [1] * files if isinstance(files, int) else files
    names, cuts = [], [len(table) * share // sum(shares) for share in accumulate(shares, initial=0)]
    for number, (start, stop) in enumerate(pairwise(cuts)):
        names.append(f"{split}/part-{number:05d}.parquet")
        write_groups(folder / names[-1], table.slice(start, stop - start), group_rows)
    return Split(len(table), tuple(names))


def write_groups(path: Path, table: pa.Table, group_rows: Sequence[int]) -> None:
    with pq.ParquetWriter(path, table.schema) as writer:
        at, sizes = 0, cycle(group_rows)
        while at < len(table):
            rows = next(sizes)
            writer.write_table(table.slice(at, rows), row_group_size=max(rows, 1))
            at += rows


def items(batches: Iterable[Batch]) -> np.ndarray:
    """Return the items of all batches, which identify the rows of `interactions`."""
    return torch.cat([batch.items for batch in batches]).numpy()


def same_batches(left: Sequence[Batch], right: Sequence[Batch]) -> bool:
    """Tell whether both are the same batches: the same rows in the same order, in every field."""
    return len(left) == len(right) and all(map(_same, left, right))


def _same(left: Batch, right: Batch) -> bool:
    return left.ids.keys() == right.ids.keys() and all(
        torch.equal(a, b)
        for a, b in [
            (left.ids.values(), right.ids.values()),
            (left.ids.lengths(), right.ids.lengths()),
            *((getattr(left, name), getattr(right, name)) for name in ("dense", "labels", "users", "items", "weight")),
        ]
    )
