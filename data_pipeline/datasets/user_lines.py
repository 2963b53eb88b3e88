"""Implicit feedback in text files with a user and items on a line, whole numbers or words, in one of two forms::

user item item …           between spaces or tabs
user<TAB>[item, item, …]   quotes around items are left out
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import FILE, ITEM, Columns
from data_pipeline.preparation.delimited import delimited_scan
from data_pipeline.preparation.inputs import Parts, Sources, check_parts, described_parts, find_parts
from data_pipeline.preparation.item_categories import read_item_categories
from data_pipeline.preparation.read import Rule, Source, ingest
from data_pipeline.preparation.workspace import Workspace, literal

# SQL: whether a line has the second form, and the line with its words between spaces or tabs
_LIST = r"regexp_full_match(text, '[^\t]*\t[ ]*\[.*\][ ]*')"
_WORDS = rf"""CASE WHEN {_LIST} THEN regexp_replace(text, '[\[\],"'']', ' ', 'g') ELSE text END"""


@dataclass(frozen=True, kw_only=True)
class UserLines(Interactions):
    """Files of any name.

    Attributes:
        file: Paths, globs, folders and addresses (see `data_pipeline.preparation.inputs`), read as one file whatever
            their split was. None: the next three name the files.
        train: The files of a ready-made split.
        validation_file: The validation files of that split; may be None.
        test: Test files of the split.
        ordered: Whether the items of a line are in order of time, oldest first. If not, the data have no times, and
            ``leave_one_out`` draws the row that it leaves out.
        categories: A file of items and their categories; see `data_pipeline.preparation.item_categories`.

    Raises:
        DataError: Neither ``file`` nor the files of a split are given, or both.
    """

    file: Sources | None
    train: Sources | None = None
    validation_file: Sources | None = None
    test: Sources | None = None
    ordered: bool
    categories: str | None = None

    def __post_init__(self) -> None:
        check_parts("file", self.file, self._parts)

    @property
    def _parts(self) -> Parts:
        return {"train": self.train, "validation": self.validation_file, "test": self.test}

    @property
    def columns(self) -> Columns:
        split = "part" if self.file is None else None
        return Columns(user="user_id", item="item_id", time="position" if self.ordered else None, split=split)

    def read(self, workspace: Workspace) -> Source:
        named = find_parts(self.file, self._parts, workspace)
        source = read_user_lines(workspace, [(part, file) for part, files in named.items() for file in files], "")
        if self.categories is not None:
            source.categories[ITEM] = read_item_categories(workspace, self.categories, "item_id", self.on_invalid)
        return replace(source, description=described_parts(self.file, self._parts))


def read_user_lines(
    workspace: Workspace, files: Sequence[tuple[str, Path]], description: str, user: str = "user_id"
) -> Source:
    """Create ``raw`` with the columns user_id, item_id, position, part, line and text.

    ``position`` counts the pairs in order of the files, so it orders a user's items where the lines do, oldest first. A
    line may have no items, as for a user whose items are all in the other part of a split.

    Args:
        workspace: Workspace that holds the table.
        files: The part that each belongs to, and its path, in order.
        description: Origin of the files, for messages.
        user: The name of the first column.
    """
    scans = [
        (path, f"SELECT *, row_number() OVER () AS line, {literal(part)} AS part FROM ({_scan(path)})")
        for part, path in files
    ]
    ingest(workspace, scans, table="lines")
    workspace.query(f"""
        CREATE TABLE raw AS
        SELECT words[1] AS {user}, unnest(words[2:]) AS item_id, part, line, text, {FILE}
        FROM (SELECT regexp_extract_all({_WORDS}, '[^ \\t]+') AS words, * FROM lines)""")
    workspace.query("ALTER TABLE raw ADD COLUMN position BIGINT")
    workspace.query("UPDATE raw SET position = rowid")
    return Source(description, text=True, position="line", rules=(_brackets(user),))


def _brackets(user: str) -> Rule:
    reason = f"a line with brackets is not of the form {user.removesuffix('_id')}<TAB>[item, item, …]"
    return Rule("text", reason, f"(contains(text, '[') OR contains(text, ']')) AND NOT {_LIST}")


def _scan(path: Path) -> str:
    return delimited_scan(path, ["text"], "\x1f", ["text"], header=False, on_invalid="error")


def existing_file(source: Path, name: str) -> Path:
    """Return ``source``, if it is a file, or else the file ``name`` in it.

    Raises:
        DataError: There is no such file.
    """
    path = source if source.is_file() else source / name
    if not path.is_file():
        raise DataError(f"{path}: no such file. Set data.source=FOLDER; relative paths start at {Path.cwd()}")
    return path
