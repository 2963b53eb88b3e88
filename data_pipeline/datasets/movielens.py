"""The MovieLens data sets (Harper and Konstan, 2015): ratings, and files of users and films.

Their licence forbids redistribution, so they are downloaded when they are prepared.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from data_pipeline.datasets.interactions import Interactions
from data_pipeline.errors import DataError
from data_pipeline.preparation.acquire import Mirror, acquire
from data_pipeline.preparation.columns import ITEM, USER, Columns
from data_pipeline.preparation.delimited import delimited_scan, line_form
from data_pipeline.preparation.malformed import malformed_lines, warn_of_malformed_lines
from data_pipeline.preparation.read import Source, ingest
from data_pipeline.preparation.workspace import Workspace

RATING = ("user_id", "item_id", "rating", "timestamp")
_USER = ("user_id", "age", "gender", "occupation")
_FILM = ("item_id", "year", "genre", "title")


@dataclass(frozen=True)
class TextFile:
    """A delimited text file, without quotes.

    Attributes:
        name: Name of the file.
        fields: Fields of each line, in order.
        delimiter: Delimiter of fields.
        header: Whether the first line has the names of the fields.
        encoding: Encoding of the text.
        values: Columns that are computed from the fields: name -> SQL.
    """

    name: str
    fields: tuple[str, ...]
    delimiter: str = "\t"
    header: bool = False
    encoding: str = "utf-8"
    values: dict[str, str] = field(default_factory=dict)

    @property
    def form(self) -> str:
        """The form of a line, for errors."""
        return line_form(self.fields, self.delimiter)


@dataclass(frozen=True)
class FileLayout:
    """The files of one release of the data, in one folder.

    Attributes:
        ratings: Table of user_id, item_id, rating, timestamp.
        users: Table of user_id, age, gender, occupation.
        films: Table of item_id, year (text) and genre (list of text).
    """

    ratings: TextFile
    users: TextFile
    films: TextFile


def recbole(name: str, **users: str) -> FileLayout:
    """Return the layout of RecBole's atomic files: tabs, a typed header, genres separated by spaces.

    Args:
        name: Name of the files.
        users: SQL of the users' columns that are computed from the fields.
    """
    film = {"year": "release_year", "genre": "string_split(class, ' ')", "title": "movie_title"}
    return FileLayout(
        ratings=TextFile(f"{name}.inter", RATING, header=True),
        users=TextFile(f"{name}.user", (*_USER, "zip_code"), header=True, values=users),
        films=TextFile(f"{name}.item", ("item_id", "movie_title", "release_year", "class"), header=True, values=film),
    )


@dataclass(frozen=True, kw_only=True)
class MovieLens(Interactions):
    """Ratings as labels: 1 for at least `threshold`. Categories: the genres of films, the occupation of users;
    films have titles.

    Attributes:
        source: A folder, zip, URL or ratings file in one of `layouts`; None: download it.
        threshold: The lowest rating with label 1.
        side_information: Add the user's gender, occupation and age, and the film's release year. Films without a year
            get the mean year.
        mirrors: Places to download the data set from.
        layouts: The layouts that are read, the publisher's first.
    """

    source: str | None = None
    threshold: float = 4
    side_information: bool = False
    mirrors: ClassVar[tuple[Mirror, ...]]
    layouts: ClassVar[tuple[FileLayout, ...]]

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
        if self.source is not None:
            workspace.reads(Path(self.source))
        found, description = acquire(self.source, self.mirrors, workspace.scratch, workspace.on_progress)
        ratings = found if found.is_file() else self._find(found)
        layout = self._layout(ratings)
        categories = {}
        if self._read_side_file(workspace, ratings, layout.users, "users", _USER):
            categories[USER] = "SELECT user_id AS original_id, occupation FROM users"
        if self._read_side_file(workspace, ratings, layout.films, "films", _FILM):
            categories[ITEM] = "SELECT item_id AS original_id, genre, title FROM films"
        scan = self._scan(ratings, layout.ratings, RATING)
        if self.side_information:
            scan = f"""
                SELECT {", ".join(RATING)}, gender, occupation, age,
                    coalesce(TRY_CAST(year AS INTEGER), (SELECT avg(TRY_CAST(year AS INTEGER)) FROM films))
                        AS release_year
                FROM (SELECT *, row_number() OVER () AS position FROM ({scan}))
                LEFT JOIN users USING (user_id) LEFT JOIN films USING (item_id)
                ORDER BY position"""  # a join may change the order, which decides between ratings of the same second
        ingest(workspace, [(ratings, scan)], form=layout.ratings.form, on_invalid=self.on_invalid)
        dropped = malformed_lines(workspace, self.on_invalid)
        return Source(description, text=True, dropped=dropped, categories=categories)

    def _find(self, folder: Path) -> Path:
        """Find the ratings file below ``folder``."""
        for layout in self.layouts:
            if found := sorted(folder.rglob(layout.ratings.name)):
                return found[0]
        names = " nor ".join(layout.ratings.name for layout in self.layouts)
        raise DataError(f"{folder}: contains neither {names}. Correct data.source")

    def _layout(self, ratings: Path) -> FileLayout:
        """Choose the layout by the ending of the file's name, or else the publisher's."""
        endings = {Path(layout.ratings.name).suffix: layout for layout in self.layouts}
        return endings.get(ratings.suffix, self.layouts[0])

    def _read_side_file(
        self, workspace: Workspace, ratings: Path, file: TextFile, table: str, columns: tuple[str, ...]
    ) -> bool:
        """Read a file of users or films into ``table``, if there is one.

        Args:
            workspace: Workspace that holds the table.
            ratings: The ratings file, in the folder of which ``file`` is looked for.
            file: File of users or films.
            table: Name of the table to create.
            columns: Columns of the table; the first is its id, which is unique.

        Returns:
            Whether the file exists.
        """
        path = ratings.with_name(file.name)
        if not path.is_file():
            if self.side_information:
                raise DataError(f"{path}: no such file. Add it, or set data.side_information=false")
            workspace.on_progress(f"{path}: no such file; {table} have no categories")
            return False
        ingest(workspace, [(path, self._scan(path, file, columns))], table, file.form, self.on_invalid)
        warn_of_malformed_lines(workspace, self.on_invalid, table)
        repeated = workspace.query(
            f"SELECT {columns[0]} FROM {table} GROUP BY 1 HAVING count(*) > 1 ORDER BY min(rowid)"
        )
        if repeated and self.on_invalid == "error":
            raise DataError(
                f"{path}: {columns[0]} {repeated[0][0]!r} is in more than one line. Correct it, or keep the first line"
                " of each: data.on_invalid=drop"
            )
        workspace.query(
            f"DELETE FROM {table} WHERE rowid NOT IN (SELECT min(rowid) FROM {table} GROUP BY {columns[0]})"
        )
        return True

    def _scan(self, path: Path, file: TextFile, columns: tuple[str, ...]) -> str:
        """Return a SELECT of ``columns``."""
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
