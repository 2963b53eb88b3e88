"""The file of `cove predict` is in the format that its name says."""

from __future__ import annotations

import csv
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cove_dist.errors import ConfigError
from cove_dist.inference.predict import open_writer

ROWS = pa.table({"user": ["a", 'b"c', "d,e"], "item": [1, 2, 3], "score": pa.array([0.5, 0.25, 0.125], pa.float32())})


@pytest.mark.parametrize("name", ["p.csv", "p.CSV", "p.parquet"])
def test_the_suffix_chooses_the_format(tmp_path: Path, name: str) -> None:
    with open_writer(tmp_path / name, tmp_path / "temporary", ROWS.schema) as writer:
        writer.write_table(ROWS[:2])
        writer.write_table(ROWS[2:])
    if name == "p.parquet":
        assert pq.read_table(tmp_path / "temporary").equals(ROWS)
        return
    with (tmp_path / "temporary").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["user"] for row in read] == ROWS["user"].to_pylist()
    assert [float(row["score"]) for row in read] == ROWS["score"].to_pylist()


def test_lists_are_not_written_as_csv(tmp_path: Path) -> None:
    schema = ROWS.schema.append(pa.field("tags", pa.list_(pa.string())))
    with pytest.raises(ConfigError, match=r"output = .*p\.csv: CSV cannot hold the lists of column tags; write \.parq"):
        open_writer(tmp_path / "p.csv", tmp_path / "temporary", schema)
