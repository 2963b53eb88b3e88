"""Lists of items that users made: Zhihu, Spotify, Goodreads, Art of the Mix.

The files are those of the list-continuation release (Y. He et al., "Consistency-Aware Recommendation for User-Generated
Item List Continuation", WSDM 2020; https://github.com/heyunh2015/ListContinuation_WSDM2020)::

    <file>.txt.zip              holds <file>.txt: list id, item id, separated by a space, in order of the list
    <file>_creator_list.dict    a pickled dict {list id: user id}: who made the list
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from data_pipeline.datasets.base import Positive, RawData
from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import acquire
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.delimited import delimited_scan, malformed_lines
from data_pipeline.preparation.lists import ListRules
from data_pipeline.preparation.read import Source, ingest
from data_pipeline.preparation.workspace import Workspace
from data_pipeline.schema import LIST, OWNER


@dataclass(frozen=True, kw_only=True)
class ItemLists(RawData):
    """Lists, filtered until nothing changes, split whole and at random, each cut in an input and a target half.

    Attributes:
        source: a folder with the files of the release, zipped or not; or the lists themselves (.txt or .txt.zip).
        file: the name that the files of the release begin with.
        owners: whether to read who made the lists; needs the creators' file beside the lists.
        min_length, max_length: of a list. Longer ones are cut at their end, shorter ones left out.
        min_occurrences: items in fewer places over all lists are left out.

    Raises:
        DataError: lengths that no list can have.
    """

    source: str
    file: str
    owners: bool = True
    min_length: Positive
    max_length: Positive
    min_occurrences: Positive = 10

    def __post_init__(self) -> None:
        if not 2 <= self.min_length <= self.max_length:
            raise DataError(
                f"data.min_length = {self.min_length}, data.max_length = {self.max_length}: must be at least 2 (both"
                " halves need an item), and must not fall"
            )

    @property
    def columns(self) -> Columns:
        return Columns(user="list_id", item="item_id", label="label")

    @property
    def rules(self) -> ListRules:
        return ListRules(self.min_length, self.max_length, self.min_occurrences)

    def read(self, workspace: Workspace) -> Source:
        path = self._lists(workspace)
        names = ("list_id", "item_id")
        scan = delimited_scan(path, names, " ", names, header=False, on_invalid=self.on_invalid)
        ingest(workspace, [(path, f"SELECT *, 1 AS label FROM ({scan})")])
        return Source(self.source, text=True, dropped=malformed_lines(workspace))

    def read_owners(self, workspace: Workspace) -> bool:
        """Create the table ``owners`` (list_id, owner_id), if owners are asked for."""
        if not self.owners:
            return False
        place = Path(self.source)
        path = (place if place.is_dir() else place.parent) / f"{self.file}_creator_list.dict"
        workspace.on_progress(f"reading {path}")
        creators = load_creators(path)
        workspace.connection.register(
            "creators", pa.table({LIST: pa.array(creators, pa.int64()), OWNER: pa.array(creators.values(), pa.int64())})
        )
        workspace.query("CREATE TABLE owners AS FROM creators")
        return True

    def _lists(self, workspace: Workspace) -> Path:
        """The text file of the lists. The release's zip holds a folder __MACOSX beside it, which is no data."""
        name, place = f"{self.file}.txt", Path(self.source)
        zipped = place / f"{name}.zip"
        if place.is_dir() and not (place / name).is_file() and zipped.is_file():
            place = zipped
        found, _ = acquire(str(place), (), workspace.scratch, workspace.on_progress)
        if found.is_file():
            return found
        files = [path for path in sorted(found.rglob("*.txt")) if "__MACOSX" not in path.parts and path.name == name]
        if not files:
            raise DataError(f"{place}: holds neither {name} nor {name}.zip. Correct data.source, or data.file")
        return files[0]


def load_creators(path: Path) -> dict[int, int]:
    """A pickled dict of whole numbers. No class is loaded, so the file cannot run code.

    Raises:
        DataError: the file is missing, or is anything else.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file. Put it beside the lists, or do without owners: data.owners=false")
    try:
        with path.open("rb") as file:
            creators = _PlainUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a pickled dict of list and user ids: {error}. Download it again") from error
    if not isinstance(creators, dict):
        raise DataError(f"{path}: holds a {type(creators).__name__}, not a dict of list and user ids")
    for pair in creators.items():
        if not all(isinstance(id, int) and 0 <= id < 2**63 for id in pair):
            raise DataError(f"{path}: list {pair[0]!r} has the owner {pair[1]!r}: both must be whole numbers from 0")
    return creators


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and may name nothing")


@dataclass(frozen=True, kw_only=True)
class AotM(ItemLists):
    """Art of the Mix: playlists. The counts are those of public lists prepared by these rules."""

    published: ClassVar[dict[str, int]] = {"lists": 12_940, "items": 6_264, "interactions": 162_106}


@dataclass(frozen=True, kw_only=True)
class Zhihu(ItemLists):
    """Answers collected on Zhihu."""

    published: ClassVar[dict[str, int]] = {"lists": 18_704, "items": 36_005, "interactions": 927_781}  # Table 1


@dataclass(frozen=True, kw_only=True)
class Spotify(ItemLists):
    """Playlists of Spotify."""

    published: ClassVar[dict[str, int]] = {"lists": 72_152, "items": 104_695, "interactions": 6_809_820}  # Table 1


@dataclass(frozen=True, kw_only=True)
class Goodreads(ItemLists):
    """Book lists of Goodreads."""

    published: ClassVar[dict[str, int]] = {"lists": 15_426, "items": 47_877, "interactions": 1_589_480}  # Table 1
