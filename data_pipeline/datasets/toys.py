"""Amazon Toys and Games 2014, 5-core, as sequences (McAuley et al., SIGIR 2015): 19,412 users, 11,924 items.

Two files::

    Toys_and_Games.txt                    user item item …: one line per user, oldest first
    Toys_and_Games_item2attributes.json   {item: [attribute, …]}: categories and brands, anonymous; optional
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.datasets.user_lines import existing_file, read_user_lines
from data_pipeline.errors import DataError
from data_pipeline.preparation.columns import ITEM, Columns
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.workspace import Workspace

_LINES, _ATTRIBUTES = "Toys_and_Games.txt", "Toys_and_Games_item2attributes.json"


@dataclass(frozen=True, kw_only=True)
class Toys(Interactions):
    """Reviews as implicit feedback. Categories: the attributes of the items.

    Attributes:
        source: The folder of the two files.
    """

    source: str
    published: ClassVar[dict[str, int]] = {"users": 19_412, "items": 11_924, "interactions": 167_597}

    @property
    def columns(self) -> Columns:
        return Columns(user="user_id", item="item_id", time="position")

    def read(self, workspace: Workspace) -> Source:
        lines = existing_file(Path(self.source), _LINES)
        source = read_user_lines(workspace, [("all", lines)], self.source)
        attributes = lines.with_name(_ATTRIBUTES)
        if attributes.is_file():
            workspace.reads(attributes)
            workspace.connection.register("item_attributes", read_attributes(attributes))
            source.categories[ITEM] = "SELECT * FROM item_attributes"
        else:
            workspace.on_progress(f"{attributes}: no such file; the items have no attributes")
        return source


def read_attributes(path: Path) -> pa.Table:
    """Read ``original_id, attribute`` (a list of text) of every item.

    Raises:
        DataError: The file is not JSON, or not an object of lists.
    """
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not JSON: {error}. It may be truncated; download it again") from error
    items = list(known) if isinstance(known, dict) else []
    wrong = next((item for item in items if not isinstance(known[item], list)), None)
    if wrong is not None or not items:
        found = f"found {wrong!r}: {known[wrong]!r}" if wrong is not None else "found no items"
        raise DataError(f"{path}: expected an object of items and their attributes, {{item: [attribute, …]}}; {found}")
    lists = pa.array([list(dict.fromkeys(map(str, known[item]))) for item in items], pa.list_(pa.string()))
    return pa.table({"original_id": items, "attribute": lists})
