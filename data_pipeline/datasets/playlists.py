"""Playlists: lists of items that users made. Zhihu, Spotify, Goodreads, Art of the Mix.

The files are those of the release of Y. He et al., "Consistency-Aware Recommendation for User-Generated Item List
Continuation" (WSDM 2020; https://github.com/heyunh2015/ListContinuation_WSDM2020)::

    <file>.txt.zip              contains <file>.txt: playlist id, item id, separated by a space, in order of the list
                                (or a playlist on a line: playlist id, tab, [item id, item id, …])
    <file>_creator_list.dict    a pickled dict {playlist id: user id}: who made the playlist
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from data_pipeline.datasets.user_lines import read_user_lines
from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import acquire
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.dataset import RawDataset
from data_pipeline.preparation.delimited import delimited_scan, line_form
from data_pipeline.preparation.encode import count_present
from data_pipeline.preparation.malformed import malformed_lines
from data_pipeline.preparation.playlists import PlaylistRules, filter_playlists, split_playlists, write_playlists
from data_pipeline.preparation.read import Source, ingest
from data_pipeline.preparation.report import Report
from data_pipeline.preparation.sequence_rows import report_sequences
from data_pipeline.preparation.validate import validate
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import OWNER, PLAYLIST, Schema
from data_pipeline.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Playlists(RawDataset):
    """Playlists, filtered until nothing changes, split whole and at random, each cut in an input and a target half.

    Attributes:
        source: A folder with the files of the release, zipped or not; or the playlist file (.txt or .txt.zip).
        file: The name that the files of the release begin with.
        owners: Whether to read who made the playlists; needs the creators' file in the same folder.
        min_length: Least number of items of a playlist; shorter ones are left out.
        max_length: Greatest number of items of a playlist; longer ones are cut at their end.
        min_occurrences: Least number of entries of an item over all playlists; rarer items are left out.

    Raises:
        DataError: ``min_length`` and ``max_length`` contradict each other.
    """

    source: str
    file: str
    owners: bool = True
    min_length: PositiveInt
    max_length: PositiveInt
    min_occurrences: PositiveInt = 10

    def __post_init__(self) -> None:
        if not 2 <= self.min_length <= self.max_length:
            raise DataError(
                f"data.min_length = {self.min_length}, data.max_length = {self.max_length}: data.min_length must be at"
                " least 2 (both halves need an item) and at most data.max_length. Change one of them"
            )

    @property
    def columns(self) -> Columns:
        return Columns(user="playlist_id", item="item_id", label="label")

    def prepare(self, workspace: Workspace, folder: Path, name: str) -> tuple[Schema, Report]:
        source = self.read(workspace)
        workspace.on_progress(f"checking {workspace.count('raw'):,} rows")
        dropped = source.dropped | validate(workspace, source, self.columns, self.on_invalid)
        dropped |= filter_playlists(workspace, PlaylistRules(self.min_length, self.max_length, self.min_occurrences))
        counts = split_playlists(workspace, self.ratios)
        if self.owners:
            self._read_owners(workspace)
        schema = write_playlists(workspace, folder, name, counts, self.row_group_size, owners=self.owners)
        report = report_sequences(
            workspace,
            schema,
            source,
            dropped,
            self.published,
            split="random",
            users=count_present(workspace, OWNER) if self.owners else 0,
        )
        return schema, report

    def read(self, workspace: Workspace) -> Source:
        path = self._playlist_file(workspace)
        if _has_lists(path):
            return self._read_lists(workspace, path)
        names = ("playlist_id", "item_id")
        scan = delimited_scan(path, names, " ", names, header=False, on_invalid=self.on_invalid)
        form = f"{line_form(names, ' ')}, or all of them playlist_id<TAB>[item_id, item_id, …]"
        scans = [(path, f"SELECT *, 1 AS label FROM ({scan})")]
        ingest(workspace, scans, form=form, on_invalid=self.on_invalid)
        return Source(self.source, text=True, dropped=malformed_lines(workspace, self.on_invalid))

    def _read_lists(self, workspace: Workspace, path: Path) -> Source:
        """Read a file with a playlist on a line: ``playlist<TAB>[item, item, …]``."""
        source = read_user_lines(workspace, [("all", path)], self.source, user="playlist_id")
        workspace.query("ALTER TABLE raw ADD COLUMN label INTEGER DEFAULT 1")
        return source

    def _read_owners(self, workspace: Workspace) -> None:
        """Create the table ``owners`` (playlist_id, owner_id)."""
        source = Path(self.source)
        path = (source if source.is_dir() else source.parent) / f"{self.file}_creator_list.dict"
        workspace.on_progress(f"reading {path}")
        workspace.reads(path)
        creators = load_creators(path)
        columns = {PLAYLIST: pa.array(creators, pa.int64()), OWNER: pa.array(creators.values(), pa.int64())}
        workspace.connection.register("creators", pa.table(columns))
        workspace.query("CREATE TABLE owners AS FROM creators")

    def _playlist_file(self, workspace: Workspace) -> Path:
        """Return the text file of the playlists. The release's zip has a folder __MACOSX as well, which is no data."""
        name, source = f"{self.file}.txt", Path(self.source)
        zipped = source / f"{name}.zip"
        if source.is_dir() and not (source / name).is_file() and zipped.is_file():
            source = zipped
        workspace.reads(source)
        found, _ = acquire(str(source), (), workspace.scratch, workspace.on_progress)
        if found.is_file():
            return found
        files = [path for path in sorted(found.rglob("*.txt")) if "__MACOSX" not in path.parts and path.name == name]
        if not files:
            raise DataError(f"{source}: contains neither {name} nor {name}.zip. Correct data.source, or data.file")
        return files[0]


def _has_lists(path: Path) -> bool:
    """Return whether a file has a playlist per line, not an entry, by its first line."""
    with path.open("rb") as file:
        return b"\t[" in file.readline(1 << 20).replace(b" ", b"")


def load_creators(path: Path) -> dict[int, int]:
    """Read a pickled dict of whole numbers. No class is loaded, so the file cannot run code.

    Returns:
        The id of the user who made each playlist, by playlist id.

    Raises:
        DataError: The file is missing, or contains anything else.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Put it into the folder of the playlists, or set data.owners=false")
    try:
        with path.open("rb") as file:
            creators = _PlainUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a pickled dict of playlist and user ids: {error}. Download it again") from error
    if not isinstance(creators, dict):
        raise DataError(
            f"{path}: a pickled {type(creators).__name__}, not a dict of playlist and user ids. Download it again"
        )
    for pair in creators.items():
        if not all(isinstance(id, int) and 0 <= id < 2**63 for id in pair):
            raise DataError(
                f"{path}: playlist {pair[0]!r} has the owner {pair[1]!r}, but both must be whole numbers from 0."
                " Download it again"
            )
    return creators


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, but only dicts of whole numbers are read")


@dataclass(frozen=True, kw_only=True)
class AotM(Playlists):
    """Playlists of Art of the Mix. The counts are those of a public copy that was prepared by these rules."""

    published: ClassVar[dict[str, int]] = {"sequences": 12_940, "items": 6_264, "interactions": 162_106}


@dataclass(frozen=True, kw_only=True)
class Zhihu(Playlists):
    """Lists of answers that users of Zhihu collected."""

    published: ClassVar[dict[str, int]] = {"sequences": 18_704, "items": 36_005, "interactions": 927_781}  # Table 1


@dataclass(frozen=True, kw_only=True)
class Spotify(Playlists):
    """Playlists of Spotify."""

    published: ClassVar[dict[str, int]] = {"sequences": 72_152, "items": 104_695, "interactions": 6_809_820}  # Table 1


@dataclass(frozen=True, kw_only=True)
class Goodreads(Playlists):
    """Lists of books of Goodreads."""

    published: ClassVar[dict[str, int]] = {"sequences": 15_426, "items": 47_877, "interactions": 1_589_480}  # Table 1
