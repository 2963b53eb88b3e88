"""``engine=spark``: the folder that a Spark job writes has the rows of the one that DuckDB writes, in the same order.

A Java process is started once for the file (10 s), so the cases are few and each covers much.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from data_pipeline.datasets.custom import Custom
from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.errors import DataError
from data_pipeline.preparation.dense import DenseSettings
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.spark.engine import SparkEngine
from data_pipeline.preparation.spark.tables import Tables
from data_pipeline.preparation.spark.workspace import Part, SparkWorkspace
from tests.unit.data.prepare_helpers import write_csv, write_parquet

SMALL = {
    "spark.ui.enabled": "false",
    "spark.sql.shuffle.partitions": "3",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",  # compiled once: the process is short
    "spark.sql.codegen.wholeStage": "false",  # few rows: compiling a query takes longer than running it
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
}
COLUMNS = {"user": "user", "item": "item", "label": "label", "time": "time"}


@pytest.fixture(scope="module")
def engine() -> Iterator[SparkEngine]:
    """Two tasks at a time, in one session for all tests."""
    first = SparkEngine("local[2]", SMALL)._start()
    first.sparkContext.setLogLevel("ERROR")
    yield SparkEngine()
    first.stop()


def contents(folder: Path) -> dict[str, Any]:
    """Read every file: tables with the sizes of their row groups, arrays, and JSON without the digests of bytes."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".parquet":
            footer = pq.read_metadata(path)
            sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
            found[name] = (sizes, pq.read_table(path))
        elif path.suffix == ".npy":
            found[name] = np.load(path).tolist()
        else:
            found[name] = {key: value for key, value in json.loads(path.read_text()).items() if key != "digests"}
    return found


def prepare_with_both(engine: SparkEngine, folder: Path, source: str, seed: int = 0, **settings: Any) -> dict[str, Any]:
    """Prepare the files with both engines, compare the folders, and return what is in them."""
    dataset = Custom(source=source, **COLUMNS | settings)
    prepare(dataset, folder / "duckdb", name="small", seed=seed)
    prepare(dataset, folder / "spark", name="small", seed=seed, engine=engine)
    expected, found = contents(folder / "duckdb"), contents(folder / "spark")
    assert list(found) == list(expected)
    for name in expected:
        assert found[name] == expected[name], name
    return found


def write_ties(folder: Path) -> str:
    """Write three files in which pairs and times repeat, some ids are missing, and ids are of several scripts."""
    chosen = random.Random(0)
    users = ["ü1", "用户", "user 3", "Ω", "z", "Z", "a|b", "07", "7", "it's"]
    for number in range(3):
        rows = [
            (chosen.choice(users), chosen.randrange(30), chosen.randrange(2), chosen.randrange(9)) for _ in range(150)
        ]
        rows += [(None, 3, 1, 4), ("z", None, 1, 4)]
        chosen.shuffle(rows)
        columns = dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True))
        kind = [pa.int32(), pa.int64(), pa.int16()][number]  # which DuckDB reads as one type
        columns["item"] = pa.array(columns["item"], kind)
        write_parquet(folder / f"part{number}.parquet", columns)
    return str(folder / "part*.parquet")


def test_implicit_feedback_with_a_core_candidates_and_histories(tmp_path: Path, engine: SparkEngine) -> None:
    found = prepare_with_both(
        engine, tmp_path, write_ties(tmp_path), seed=3, implicit=True, core=4, candidates=3, on_invalid="drop"
    )
    dropped = found["report.json"]["rows_dropped"]
    assert dropped["user: null or empty id"] == dropped["item: null id"] == 3
    assert dropped["below the 4-core"] and dropped["repeated user-item pair"] and found["report.json"]["ties"]


@pytest.mark.parametrize("split", ["user_time", "time", "random"])
def test_labelled_rows_of_csv_with_features_weights_and_rare_ids(
    tmp_path: Path, engine: SparkEngine, split: str
) -> None:
    chosen, names = random.Random(1), ("user", "item", "label", "time", "device", "price", "weight")
    for number in range(2):
        rows = [
            (
                chosen.randrange(12),
                f'item, "{chosen.randrange(20)}"\nnext line',
                chosen.choice(["0", "1", "1.0", "true"]),
                f"2026-01-0{chosen.randrange(1, 9)}T10:00:00.{chosen.randrange(10**9):09d}+0{number}:30",
                chosen.choice(["phone", "tablet", "телефон", ""]),
                chosen.choice(["1e-3", "2.5", "7"]),
                chosen.choice(["0", "0.1", "2"]),
            )
            for _ in range(120)
        ]
        write_csv(tmp_path / f"log{number}.csv", rows, names)
    packed = tmp_path / "log1.csv"
    (tmp_path / "log1.csv.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    rest = {"categorical": ("device",), "dense": ("price",), "weight": "weight", "split": split}
    rest |= {"min_count": {"item": 9, "device": 2}, "rare": "hash", "hash_buckets": 5}
    found = prepare_with_both(engine, tmp_path, str(tmp_path / "log*"), **rest)
    assert found["report.json"]["rare"]["item_id"]["ids"]


def test_a_split_of_the_data_without_validation_rows(tmp_path: Path, engine: SparkEngine) -> None:
    chosen = random.Random(2)
    rows = [
        (chosen.randrange(5), chosen.randrange(9), k % 2, float(k // 3), ["train", "test"][k % 5 == 0])
        for k in range(90)
    ]
    names = (*COLUMNS, "part")
    write_parquet(tmp_path / "rows.parquet", dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    found = prepare_with_both(
        engine, tmp_path, str(tmp_path / "rows.parquet"), split_column="part", validation="leave_one_out"
    )
    assert found["report.json"]["rows"]["validation"] == 5


def test_invalid_rows_are_named_by_file_row_and_value(tmp_path: Path, engine: SparkEngine) -> None:
    write_csv(tmp_path / "a.csv", [(1, 2, 1, 5)] * 4)
    write_csv(tmp_path / "b.csv", [(1, 2, 1, 5), (1, 2, "x", 5)])
    with pytest.raises(DataError, match=r"b\.csv: column 'label'.* in 1 row, first 'x' in data row 2"):
        prepare(Custom(source=str(tmp_path / "*.csv"), **COLUMNS), tmp_path / "out", name="small", engine=engine)
    (tmp_path / "b.csv").write_text('user,item,label,time\n1,2,1\n"')
    with pytest.raises(DataError, match=r"b\.csv: "):
        prepare(Custom(source=str(tmp_path / "*.csv"), **COLUMNS), tmp_path / "out", name="small", engine=engine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]


def test_invalid_lines_are_counted_and_lost_ones_refused(tmp_path: Path, engine: SparkEngine) -> None:
    rows = [f"{row % 5},{row},{row % 2},{row}" for row in range(4_000)]
    for name in ("a", "b"):
        lines = list(rows)
        lines[7], lines[9], lines[30], lines[3_000], lines[3_999] = "1,2", *['1,"2,1,4', '1,"2",1,4'] * 2
        (tmp_path / f"{name}.csv").write_text("\n".join(["user,item,label,time", *lines]) + "\n")
    found = prepare_with_both(engine, tmp_path, str(tmp_path / "*.csv"), on_invalid="drop")
    assert found["report.json"]["rows_dropped"] == {"malformed CSV line": 2 * (1 + 22 + 1_000)}
    with (tmp_path / "b.csv").open("a") as file:
        file.write('1,"2,1,4\n1,2,1,4\n')
    dataset = Custom(source=str(tmp_path / "*.csv"), **COLUMNS, on_invalid="drop")
    with pytest.raises(DataError, match=r"b\.csv: after data row 2980, a quote that is not closed joins the lines"):
        prepare(dataset, tmp_path / "out", name="small", engine=engine)


def test_a_message_reads_the_file_of_its_row_only(tmp_path: Path) -> None:
    """Of thousands of files, each message would otherwise take seconds."""
    parts = []
    for number, rows in enumerate((3, 0, 4)):
        path = write_parquet(tmp_path / f"{number}.parquet", {"user": [f"u{number}{row}" for row in range(rows)]})
        parts.append(Part(Path(f"{number}.csv"), path, 3 * (number > 0)))
    with duckdb.connect() as connection:
        workspace = SparkWorkspace(connection, tmp_path, 0, print, tables=cast(Tables, None), memory_gb=1, _parts=parts)
        assert workspace.rows_by_file("raw", "__file") == {"0.csv": 3, "1.csv": 0, "2.csv": 4}
        parts[0].path.unlink()
        assert Source("", text=True).find(workspace, "user", 5) == ("u22", "2.csv", 3)
        (tmp_path / "2.parquet").rename(tmp_path / "0.parquet")
        parts[2].path.write_text("")
        assert Source("", text=True).find(workspace, "user", 2) == ("u22", "0.csv", 3)


def test_rows_are_numbered_in_order_over_all_partitions(tmp_path: Path, engine: SparkEngine) -> None:
    session = SparkSession.getActiveSession()
    assert session is not None
    tables = Tables(session, tmp_path)
    values = np.random.default_rng(0).permutation(1000).tolist()
    frame = session.createDataFrame([(value,) for value in values], "x long")
    name = tables.number(frame.repartitionByRange(4, "x").sortWithinPartitions("x"))
    rows = session.table(f"`{name}`").collect()
    assert len(list(tmp_path.glob("*/*.parquet"))) > 1
    assert sorted((row["x"], row["__number"]) for row in rows) == [(k, k) for k in range(1000)]


@pytest.mark.parametrize(
    "settings",
    [
        {"sequences": 5},
        {"request": "session"},
        {"lists": ("tags",)},
        {"dense_transforms": {"price": DenseSettings(fill=0)}},
    ],
)
def test_settings_that_only_duckdb_prepares_are_refused_by_name(settings: dict[str, Any], tmp_path: Path) -> None:
    dataset = Custom(source="none.csv", **COLUMNS | settings)
    with pytest.raises(DataError, match=f"data.{next(iter(settings))} = .* not with engine=spark"):
        prepare(dataset, tmp_path / "out", name="small", engine=SparkEngine())


def test_other_data_sets_resume_and_another_master_are_refused(tmp_path: Path, engine: SparkEngine) -> None:
    with pytest.raises(DataError, match="engine = spark: prepares data=custom only, not Synthetic"):
        prepare(Synthetic(rows=10, users=2, items=2), tmp_path / "out", name="x", engine=engine)
    dataset = Custom(source=write_ties(tmp_path), **COLUMNS)
    with pytest.raises(DataError, match="resume = true: not with engine=spark"):
        prepare(dataset, tmp_path / "out", name="x", engine=engine, resume=True)
    with pytest.raises(DataError, match=r"spark.master = local\[9\].* a Spark session on local\[2\] runs already"):
        prepare(dataset, tmp_path / "out", name="x", engine=SparkEngine("local[9]"))
