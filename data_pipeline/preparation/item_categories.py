"""Categories of one's own items, from a file with a row per item: its id, and a column per kind of category.

The ids are in the column that is named like that of the items in the rows, or else in the first column. The others are
kinds of category: text or numbers or, in Parquet and Arrow, lists of text.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from data_pipeline.errors import DataError
from data_pipeline.preparation.csv_header import read_header
from data_pipeline.preparation.delimited import OnInvalid, csv_scan
from data_pipeline.preparation.formats import is_parquet, kind_of
from data_pipeline.preparation.inputs import find_files
from data_pipeline.preparation.malformed import refuse_lost_lines, warn_of_malformed_lines
from data_pipeline.preparation.parquet import parquet_scans
from data_pipeline.preparation.read import ingest
from data_pipeline.preparation.workspace import Workspace, quoted


def read_item_categories(workspace: Workspace, path: str, item: str, on_invalid: OnInvalid) -> str:
    """Read the file into the table ``item categories``.

    Args:
        workspace: Workspace that holds the table.
        path: Path of the file: CSV with a header line, Parquet or Arrow.
        item: The column of items in the rows.
        on_invalid: "error" refuses an item that is in several rows; "drop" keeps the first.

    Returns:
        The SELECT of ``original_id`` and the kinds; see `data_pipeline.preparation.read.Source`.

    Raises:
        DataError: The file cannot be read, has no column of categories, or has an item twice.
    """
    files = find_files(path, workspace)
    if len(files) > 1:
        shown = ", ".join(file.name for file in files[:3])
        raise DataError(f"data.categories = {path}: must be one file, and there are {len(files)}, such as {shown}")
    [file] = files
    if kind_of(file) == "JSON lines":
        raise DataError(f"data.categories = {path}: must be CSV, Parquet or Arrow. Convert it")
    if kind_of(file) == "CSV":
        names, _ = read_header(file, [])
        scans = [(file, csv_scan(file, names, on_invalid))]
    else:
        try:
            names = (pq.read_schema(file) if is_parquet(file) else ds.dataset(file, format="ipc").schema).names
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{file}: cannot be read as {kind_of(file)}: {error}. Write it again") from error
        scans, _ = parquet_scans(workspace, [file], names)
    if len(names) < 2:
        raise DataError(
            f"{file}: has the column {', '.join(names)} only. Give a column of items, and one per kind of category"
        )
    key = item if item in names else names[0]
    table = quoted("item categories")
    text = kind_of(file) == "CSV"
    ingest(workspace, scans, table, on_invalid=on_invalid if text else "error")
    if text:
        refuse_lost_lines(workspace, files, names, on_invalid, table)
        warn_of_malformed_lines(workspace, on_invalid, table)
    repeated = workspace.query(f"SELECT {quoted(key)} FROM {table} GROUP BY 1 HAVING count(*) > 1 ORDER BY min(rowid)")
    if repeated and on_invalid == "error":
        raise DataError(
            f"{file}: the item {repeated[0][0]!r} is in more than one row. Correct it, or keep the first row of each:"
            " data.on_invalid=drop"
        )
    kinds = [name for name in names if name != key]
    first = ", ".join(f"arg_min({quoted(name)}, rowid) AS {quoted(name)}" for name in kinds)
    return f"SELECT {quoted(key)} AS original_id, {first} FROM {table} WHERE {quoted(key)} IS NOT NULL GROUP BY 1"
