"""MovieLens-100K (Harper and Konstan, 2015): 943 users, 1,682 films, 100,000 ratings from 1 to 5.

Its licence forbids redistribution, so it is fetched when it is prepared: from GroupLens, else from a wheel on the
Python package index that holds the same ratings. Two forms are read::

    GroupLens   u.data (user, item, rating, time; tabs, no header)   u.user, u.item (bars, no header)
    RecBole     ml-100k.inter, .user, .item (tabs, a typed header)
"""

import csv
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from data_pipeline.datasets.base import Dataset
from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import Download, Place, Wheel, acquire
from data_pipeline.preparation.columns import Columns
from data_pipeline.preparation.read import Source, delimited_scan, ingest, malformed_lines
from data_pipeline.preparation.workspace import Workspace

_IN_WHEEL = "recbole/dataset_example/ml-100k/ml-100k"
PLACES: tuple[Place, ...] = (
    Download(
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    ),
    Wheel(
        "recbole==1.2.1",
        filename="recbole-1.2.1-py3-none-any.whl",
        sha256={
            f"{_IN_WHEEL}.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
            f"{_IN_WHEEL}.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
            f"{_IN_WHEEL}.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
        },
    ),
)
_NAMES = ("user_id", "item_id", "rating", "timestamp")


@dataclass(frozen=True, kw_only=True)
class MovieLens100K(Dataset):
    """Ratings as labels: 1 for at least `threshold`.

    Attributes:
        source: a folder, zip, URL or ratings file in either form; None: fetch it.
        threshold: the lowest rating with label 1.
        side_information: add the user's gender, occupation and age, and the film's release year. The one film without a
            year gets the mean year.
    """

    source: str | None = None
    threshold: float = 4
    side_information: bool = False

    @property
    def columns(self) -> Columns:
        return Columns(
            user="user_id",
            item="item_id",
            rating="rating",
            threshold=self.threshold,
            time="timestamp",
            categorical=("gender", "occupation") if self.side_information else (),
            dense=("age", "release_year") if self.side_information else (),
        )

    def read(self, workspace: Workspace) -> Source:
        place, description = acquire(self.source, PLACES, workspace.scratch, workspace.on_progress)
        ratings = place if place.is_file() else _find(place)
        header = ratings.suffix == ".inter"
        scan = delimited_scan(ratings, _NAMES, "\t", _NAMES, header=header, on_invalid=self.on_invalid)
        if self.side_information:
            workspace.connection.register("users", _users(ratings))
            workspace.connection.register("items", _items(ratings))
            scan = f"""
                SELECT {", ".join(_NAMES)}, gender, occupation, age,
                    coalesce(year, (SELECT avg(year) FROM items)) AS release_year
                FROM (SELECT *, row_number() OVER () AS place FROM ({scan}))
                LEFT JOIN users USING (user_id) LEFT JOIN items USING (item_id)
                ORDER BY place"""  # a join alone may change the order, which decides between ratings of the same second
        ingest(workspace, [(ratings, scan)])
        return Source(description, text=True, dropped=malformed_lines(workspace))


def _find(folder: Path) -> Path:
    """The ratings file below `folder`."""
    for name in ("u.data", "ml-100k.inter"):
        if found := sorted(folder.rglob(name)):
            return found[0]
    raise DataError(f"{folder}: holds neither u.data nor ml-100k.inter. Correct data.source")


def _users(ratings: Path) -> pa.Table:
    rows = _rows(ratings, "user")
    return pa.table(
        {name: [row[i] for row in rows] for name, i in (("user_id", 0), ("age", 1), ("gender", 2), ("occupation", 3))}
    )


def _items(ratings: Path) -> pa.Table:
    """The year is in the release date (01-Jan-1995) or in a column of its own."""
    rows = _rows(ratings, "item")
    years = [row[2][-4:] for row in rows]
    return pa.table(
        {
            "item_id": [row[0] for row in rows],
            "year": pa.array([float(year) if year.isdecimal() else None for year in years], pa.float64()),
        }
    )


def _rows(ratings: Path, kind: str) -> list[list[str]]:
    """The rows of the users' or the items' file beside `ratings`."""
    recbole = ratings.suffix == ".inter"
    path = ratings.with_suffix(f".{kind}")
    if not path.is_file():
        raise DataError(
            f"{path}: no such file. data.side_information=true needs it; without it pass data.side_information=false"
        )
    with path.open(encoding="utf-8" if recbole else "latin-1", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t" if recbole else "|", quoting=csv.QUOTE_NONE))
    return rows[1:] if recbole else rows
