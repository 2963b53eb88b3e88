"""Prepared folders whose rows belong to requests."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_pipeline.digests import digest_folder
from data_pipeline.schema import REQUEST, Schema


def with_requests(prepared: Path, folder: Path, rows: int = 4, seed: int = 0) -> Path:
    """Copy a prepared folder; up to ``rows`` neighboring rows of a user become a request, numbered at random.

    Needs splits sorted by user where they are evaluated. Each becomes one file.
    """
    shutil.copytree(prepared, folder)
    schema, rng, first = Schema.load(folder), np.random.default_rng(seed), 0
    numbers = rng.permutation(sum(split.rows for split in schema.splits.values()))
    splits = {}
    for name, split in schema.splits.items():
        table = pa.concat_tables(pq.read_table(folder / file) for file in split.files)
        users = table[schema.entity("user").name].to_numpy()
        begins = np.flatnonzero(np.diff(users, prepend=-1))
        place = np.arange(len(users)) - np.repeat(begins, np.diff(np.append(begins, len(users))))
        request = first + np.cumsum(place % rows == 0) - 1
        first = int(request.max()) + 1
        path = folder / split.files[0]
        pq.write_table(table.append_column(REQUEST, pa.array(numbers[request])), path, row_group_size=97)
        splits[name] = replace(split, files=split.files[:1])
    ids = pa.table({name: np.arange(len(numbers)) for name in ("id", "original_id")})
    pq.write_table(ids, folder / "ids" / f"{REQUEST}.parquet")
    replace(schema, splits=splits, requests=len(numbers), digests=digest_folder(folder)).save(folder)
    return folder
