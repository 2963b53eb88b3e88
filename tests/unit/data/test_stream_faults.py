"""Every fault of a prepared folder is a `DataError` that names its position."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_pipeline.errors import DataError
from data_pipeline.schema import Split
from data_pipeline.streaming.settings import StreamSettings
from data_pipeline.streaming.stream import ParquetStream
from tests.unit.data.stream_fixtures import interactions_of, write_folder, write_groups

BAD_VALUES = {
    "null id": ("user", pa.array([0, None, 1]), "user = null"),
    "negative id": ("user", [0, 1, -3], "user = -3, expected an id from 0 to 1"),
    "id too large": ("item", [0, 1, 3], "item = 3, expected an id from 0 to 2"),
    "id too large in a list": ("history", [[0], [], [2, 9]], "history = 9, expected an id from 0 to 2"),
    "null in a list": ("history", [[0], [], [None]], "history = [..., null, ...]"),
    "null list": ("history", pa.array([[0], [1], None], pa.list_(pa.int64())), "history = null"),
    "label not 0 or 1": ("label", np.array([0, 1, 2], np.float32), "label = 2.0, expected a label"),
    "label not a number": ("label", np.array([0, np.nan, 0], np.float32), "label = nan"),
    "null label": ("label", pa.array([0, None, 0], pa.float32()), "label = null"),
    "dense not a number": ("age", np.array([0, 1, np.nan], np.float32), "age = nan, expected a finite number"),
    "dense infinite": ("age", np.array([0, -np.inf, 0], np.float32), "age = -inf"),
}


def write_replaced(folder, name, values):
    """Write ten valid rows in two row groups, then a second file whose second row group has an invalid column."""
    schema = write_folder(folder, {"train": interactions_of([0, 0, 1])}, files=1)
    good = interactions_of([0, 0, 1])
    bad = good.set_column(good.column_names.index(name), name, values if isinstance(values, pa.Array) else [values])
    path = folder / "train" / "part-00001.parquet"
    write_groups(path, pa.concat_tables([good, bad]), group_rows=(3,))
    split = Split(9, (*schema.splits["train"].files, "train/part-00001.parquet"))
    return replace(schema, splits={"train": split}), path


@pytest.mark.parametrize("case", BAD_VALUES)
def test_an_invalid_value_is_named_with_its_position(tmp_path, case):
    name, values, message = BAD_VALUES[case]
    schema, path = write_replaced(tmp_path, name, values)
    with pytest.raises(DataError, match=re.escape(f"{path}, row group 1, row ") + "[12]: " + re.escape(message)):
        list(ParquetStream(tmp_path, schema, "train", StreamSettings(4)).batches(0))


def test_rows_out_of_user_order_are_refused_for_evaluation(tmp_path):
    schema, path = write_replaced(tmp_path, "user", [1, 0, 1])
    with pytest.raises(
        DataError, match=re.escape(f"{path}, row group 0, row 0: user = 0, expected rows sorted by user")
    ):
        ParquetStream(tmp_path, schema, "train", StreamSettings(4, group_by_user=True))


def rewrite_part(folder, change):
    schema = write_folder(folder, {"train": interactions_of([0, 0, 1])}, files=1)
    path = folder / schema.splits["train"].files[0]
    change(path)
    return schema, path


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


def drop_column(path):
    pq.write_table(pq.read_table(path).drop_columns("item"), path)


def narrow_column(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "user", table["user"].cast(pa.int32())), path)


def text_history(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(3, "history", pa.array([["a"], [], ["b"]])), path)


def drop_row(path):
    pq.write_table(pq.read_table(path).slice(1), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncate, "part-00000.parquet: cannot be read as Parquet: "),
        (lambda path: path.unlink(), "part-00000.parquet: no such file"),
        (drop_column, "part-00000.parquet: no column 'item'; the columns are user, age, history, label"),
        (narrow_column, "part-00000.parquet: column 'user' is int32, expected int64"),
        (text_history, "part-00000.parquet: column 'history' is list<string>, expected list<int64>"),
        (drop_row, "files of train have 2 rows, but schema.json has 3"),
    ],
)
def test_files_that_do_not_match_the_schema_are_refused_before_streaming(tmp_path, change, message):
    schema, _ = rewrite_part(tmp_path, change)
    with pytest.raises(DataError, match=re.escape(message)):
        ParquetStream(tmp_path, schema, "train", StreamSettings(4))


def test_damaged_pages_are_named_while_streaming(tmp_path):
    def damage(path):
        data = bytearray(path.read_bytes())
        data[4:200] = b"\xff" * 196  # pages, after the leading magic; the footer is intact
        path.write_bytes(data)

    schema, path = rewrite_part(tmp_path, damage)
    stream = ParquetStream(tmp_path, schema, "train", StreamSettings(4))
    with pytest.raises(DataError, match=re.escape(f"{path}: cannot be read as Parquet")):
        list(stream.batches(0))
