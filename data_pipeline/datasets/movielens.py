"""What the MovieLens data sets share (Harper and Konstan, 2015): ratings, and files of users and films beside them.

Their licence forbids redistribution, so they are fetched when they are prepared.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from data_pipeline.datasets.base import Dataset
from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import Place, acquire
from data_pipeline.preparation.columns import ITEM, USER, Columns
from data_pipeline.preparation.delimited import delimited_scan, malformed_lines
from data_pipeline.preparation.read import Source, ingest
from data_pipeline.preparation.workspace import Workspace

RATING = ("user_id", "item_id", "rating", "timestamp")
_USER = ("user_id", "age", "gender", "occupation")
_FILM = ("item_id", "year", "genre")


@dataclass(frozen=True)
class File:
    """A delimited text file, without quotes.

    Attributes:
        name: of the file.
        fields: of each line, in order.
        values: columns that are not fields as they stand: name -> SQL over the fields.
    """

    name: str
    fields: tuple[str, ...]
    delimiter: str = "\t"
    header: bool = False
    encoding: str = "utf-8"
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Form:
    """The files of one form of the data, in one folder.

    Attributes:
        ratings: gives user_id, item_id, rating, timestamp.
        users: gives user_id, age, gender, occupation.
        films: gives item_id, year (text) and genre (list of text).
    """

    ratings: File
    users: File
    films: File


def recbole(name: str, **users: str) -> Form:
    """The form of RecBole's atomic files: tabs, a typed header, genres separated by spaces.

    Args:
        users: SQL of the users' columns that are not fields as they stand.
    """
    film = {"year": "release_year", "genre": "string_split(class, ' ')"}
    return Form(
        ratings=File(f"{name}.inter", RATING, header=True),
        users=File(f"{name}.user", (*_USER, "zip_code"), header=True, values=users),
        films=File(f"{name}.item", ("item_id", "movie_title", "release_year", "class"), header=True, values=film),
    )


@dataclass(frozen=True, kw_only=True)
class MovieLens(Dataset):
    """Ratings as labels: 1 for at least `threshold`. Categories: the genres of films, the occupation of users.

    Attributes:
        source: a folder, zip, URL or ratings file in one of `forms`; None: fetch it.
        threshold: the lowest rating with label 1.
        side_information: add the user's gender, occupation and age, and the film's release year. Films without a year
            get the mean year.
        places: where the data set is fetched from.
        forms: in which it may come, the publisher's first.
    """

    source: str | None = None
    threshold: float = 4
    side_information: bool = False
    places: ClassVar[tuple[Place, ...]]
    forms: ClassVar[tuple[Form, ...]]

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
        place, description = acquire(self.source, self.places, workspace.scratch, workspace.on_progress)
        ratings = place if place.is_file() else self._find(place)
        form = self._form(ratings)
        categories = {}
        if self._read_beside(workspace, ratings, form.users, "users", _USER):
            categories[USER] = "SELECT user_id AS original_id, occupation FROM users"
        if self._read_beside(workspace, ratings, form.films, "films", _FILM):
            categories[ITEM] = "SELECT item_id AS original_id, genre FROM films"
        scan = self._scan(ratings, form.ratings, RATING)
        if self.side_information:
            scan = f"""
                SELECT {", ".join(RATING)}, gender, occupation, age,
                    coalesce(TRY_CAST(year AS INTEGER), (SELECT avg(TRY_CAST(year AS INTEGER)) FROM films))
                        AS release_year
                FROM (SELECT *, row_number() OVER () AS place FROM ({scan}))
                LEFT JOIN users USING (user_id) LEFT JOIN films USING (item_id)
                ORDER BY place"""  # a join alone may change the order, which decides between ratings of the same second
        ingest(workspace, [(ratings, scan)])
        return Source(description, text=True, dropped=malformed_lines(workspace), categories=categories)

    def _find(self, folder: Path) -> Path:
        """The ratings file below `folder`."""
        for form in self.forms:
            if found := sorted(folder.rglob(form.ratings.name)):
                return found[0]
        names = " nor ".join(form.ratings.name for form in self.forms)
        raise DataError(f"{folder}: holds neither {names}. Correct data.source")

    def _form(self, ratings: Path) -> Form:
        """By the ending of the file's name; the publisher's where it is none of theirs."""
        endings = {Path(form.ratings.name).suffix: form for form in self.forms}
        return endings.get(ratings.suffix, self.forms[0])

    def _read_beside(
        self, workspace: Workspace, ratings: Path, file: File, table: str, columns: tuple[str, ...]
    ) -> bool:
        """Read `file` into `table`, where it lies beside the ratings; the first of `columns` is its id, there once."""
        path = ratings.with_name(file.name)
        if not path.is_file():
            if self.side_information:
                raise DataError(f"{path}: no such file. Add it, or do without: data.side_information=false")
            workspace.on_progress(f"{path}: no such file, so {table} have no categories")
            return False
        ingest(workspace, [(path, self._scan(path, file, columns))], table)
        repeated = workspace.query(
            f"SELECT {columns[0]} FROM {table} GROUP BY 1 HAVING count(*) > 1 ORDER BY min(rowid)"
        )
        if repeated and self.on_invalid == "error":
            raise DataError(
                f"{path}: {columns[0]} {repeated[0][0]!r} is there more than once. Correct it, or keep the first line"
                " of each: data.on_invalid=drop"
            )
        workspace.query(
            f"DELETE FROM {table} WHERE rowid NOT IN (SELECT min(rowid) FROM {table} GROUP BY {columns[0]})"
        )
        return True

    def _scan(self, path: Path, file: File, columns: tuple[str, ...]) -> str:
        """A SELECT of `columns`."""
        lines = delimited_scan(
            path,
            file.fields,
            file.delimiter,
            file.fields,
            header=file.header,
            encoding=file.encoding,
            on_invalid=self.on_invalid,
        )
        return f"SELECT {', '.join(f'{file.values.get(name, name)} AS {name}' for name in columns)} FROM ({lines})"
