"""Read implicit feedback with one line per user: ``user item item …``, whole numbers or words between spaces."""

from collections.abc import Mapping
from pathlib import Path

from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE
from data_pipeline.preparation.delimited import delimited_scan
from data_pipeline.preparation.read import Source, ingest
from data_pipeline.preparation.workspace import Workspace, literal


def read_user_lines(workspace: Workspace, files: Mapping[str, Path], description: str) -> Source:
    """Create ``raw`` with the columns user_id, item_id, position, part and line.

    ``position`` counts the pairs in order of the files, so it orders a user's items where the lines do, oldest first. A
    line may have no items, as for a user whose items are all in the other part of a split.

    Args:
        workspace: holds the table.
        files: by the name of their part, in order.
        description: where the files come from, for messages.
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
    workspace.query("ALTER TABLE raw ADD COLUMN position BIGINT")
    workspace.query("UPDATE raw SET position = rowid")
    return Source(description, text=True, position="line")


def _scan(path: Path) -> str:
    return delimited_scan(path, ["text"], "\x1f", ["text"], header=False, on_invalid="error")


def existing_file(source: Path, name: str) -> Path:
    """Return ``source``, if it is a file, or else the file ``name`` in it.

    Raises:
        DataError: there is no such file.
    """
    path = source if source.is_file() else source / name
    if not path.is_file():
        raise DataError(f"{path}: no such file. Set data.source=FOLDER; relative paths start at {Path.cwd()}")
    return path
