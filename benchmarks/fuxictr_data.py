"""A data set prepared by this project, in FuxiCTR's form."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuxictr.features import FeatureMap

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Prepared:
    """A prepared folder in FuxiCTR's form: one ``.npz`` per split and the feature map that describes them."""

    folder: Path
    feature_map: FeatureMap
    user: str
    rows: dict[str, int]
    sha256: str  # of every column of every split: tells whether earlier results are of the same data


def convert(data: Path, folder: Path) -> Prepared:
    """Read the Parquet shards that ``data/schema.json`` lists; write ``folder/<split>.npz``, unseen ids as one row."""
    path = data / "schema.json"
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. --data takes a folder written by cove prepare.")
    schema = json.loads(path.read_text())
    fields = {c["role"]: c for c in schema["categorical"] if c["role"] in ("user", "item") and not c["sequence"]}
    num_seen = {fields[role]["name"]: fields[role]["num_seen"] for role in ("user", "item")}
    label = schema["label"]
    rows, digest = {}, hashlib.sha256()
    for split in SPLITS:
        files = schema["splits"][split]["files"]
        table = pa.concat_tables(pq.read_table(data / file, columns=[*num_seen, label]) for file in files)
        columns = {name: np.minimum(table[name].to_numpy(), reserved) for name, reserved in num_seen.items()}
        columns[label] = table[label].to_numpy()
        np.savez(folder / f"{split}.npz", **columns)
        for column in columns.values():
            digest.update(column.tobytes())
        rows[split] = table.num_rows
    feature_map = build_feature_map(schema["name"], folder, num_seen, label)
    return Prepared(folder, feature_map, fields["user"]["name"], rows, digest.hexdigest())


def build_feature_map(name: str, folder: Path, num_seen: dict[str, int], label: str) -> FeatureMap:
    """Build categorical fields of ``num_seen + 1`` rows each, without a padding row, as no field is a sequence."""
    feature_map = FeatureMap(name, str(folder))
    feature_map.features = OrderedDict(
        (field, {"source": "", "type": "categorical", "vocab_size": seen + 1}) for field, seen in num_seen.items()
    )
    feature_map.labels = [label]
    feature_map.num_fields = feature_map.get_num_fields()
    feature_map.set_column_index()
    return feature_map
