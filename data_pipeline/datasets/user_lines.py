"""Implicit feedback with a line a user: ``user item item …``, whole numbers or words between spaces.

What the data sets of this form share.
"""

from collections.abc import Mapping
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE
from data_pipeline.preparation.delimited import delimited_scan
from data_pipeline.preparation.read import Source, ingest
from data_pipeline.preparation.workspace import Workspace, literal


def read_user_lines(workspace: Workspace, files: Mapping[str, Path], description: str) -> Source:
    """Create ``raw`` with the columns user_id, item_id, place, part and line.

    Args:
        files: by the name of their part, in order.

    ``place`` counts the pairs as the files have them, so it orders a user's items where lines do, oldest first. A line
    may be of a user without items, as where all of them are in the other part of a split.
    """
    scans = [
        (path, f"SELECT *, row_number() OVER () AS line, {literal(part)} AS part FROM ({_scan(path)})")
        for part, path in files.items()
    ]
    ingest(workspace, scans, table="lines")
    workspace.query(f"""
        CREATE TABLE raw AS
        SELECT words[1] AS user_id, unnest(words[2:]) AS item_id,
            part, line, {FILE}
        FROM (SELECT regexp_split_to_array(trim(text), ' +') AS words, * FROM lines)""")
    workspace.query("ALTER TABLE raw ADD COLUMN place BIGINT")
    workspace.query("UPDATE raw SET place = rowid")
    return Source(description, text=True, place="line")


def _scan(path: Path) -> str:
    return delimited_scan(path, ["text"], "\x1f", ["text"], header=False, on_invalid="error")


def existing_file(source: Path, name: str) -> Path:
    """``source`` itself, if it is a file, or the file of this name in it.

    Raises:
        DataError: there is none.
    """
    path = source if source.is_file() else source / name
    if not path.is_file():
        raise DataError(f"{path}: no such file. Set data.source=FOLDER; relative paths start at {Path.cwd()}")
    return path
