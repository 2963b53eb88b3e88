"""Amazon-Book as split by KGAT (Wang et al., KDD 2019): ``train.txt`` and ``test.txt``, one line per user, in no order.

The split is kept. It has no validation rows: `validation` says whether training rows are taken for it. The shipped
configuration takes one from every user who has two, since early stopping needs validation rows.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.datasets.user_lines import existing_file, read_user_lines
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.workspace import Workspace

_PARTS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class AmazonBook(Interactions):
    """Implicit feedback.

    Attributes:
        source: The folder of the two files.
    """

    source: str
    published: ClassVar[dict[str, int]] = {"users": 70_679, "items": 24_915, "interactions": 846_434}

    @property
    def columns(self) -> Columns:
        return Columns(user="user_id", item="item_id", split="part")

    def read(self, workspace: Workspace) -> Source:
        files = [(part, existing_file(Path(self.source), f"{part}.txt")) for part in _PARTS]
        return read_user_lines(workspace, files, self.source)
