"""Implicit feedback in text files with one line per user: ``user item item …``, ids of whole numbers or words."""

from dataclasses import dataclass

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.datasets.user_lines import read_user_lines
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.inputs import Sources, described, find_files
from data_pipeline.preparation.read import Source
from data_pipeline.preparation.workspace import Workspace


@dataclass(frozen=True, kw_only=True)
class PerUser(Interactions):
    """Files that are read as one, whatever split they had.

    Attributes:
        source: paths, globs, folders and addresses; see `data_pipeline.preparation.inputs`.
        ordered: whether the items of a line are in order of time, oldest first. If not, the data have no times, and
            ``leave_one_out`` draws the row that it leaves out.
    """

    source: Sources
    ordered: bool

    @property
    def columns(self) -> Columns:
        return Columns(user="user_id", item="item_id", time="position" if self.ordered else None)

    def read(self, workspace: Workspace) -> Source:
        files = {str(path): path for path in find_files(self.source, workspace)}
        return read_user_lines(workspace, files, described(self.source))
