"""MovieLens-1M: 6,040 users, 3,706 rated films of 3,883, 1,000,209 ratings from 1 to 5.

It is downloaded from GroupLens. Two layouts are read::

    GroupLens   ratings.dat, users.dat, movies.dat (two colons, no header)
    RecBole     ml-1m.inter, .user, .item (tabs, a typed header)
"""

from dataclasses import dataclass
from typing import ClassVar

from data_pipeline.datasets.movielens import RATING, FileLayout, MovieLens, TextFile, recbole
from data_pipeline.preparation.acquire import Download, Mirror
from data_pipeline.preparation.workspace import literal

_OCCUPATIONS = (
    *("other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service"),
    *("doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer"),
    *("retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman"),
    *("unemployed", "writer"),
)  # the meaning of the numbers 0, 1, … in the files (see the README of ml-1m.zip)

_OCCUPATION = f"coalesce([{', '.join(map(literal, _OCCUPATIONS))}][TRY_CAST(occupation AS INTEGER) + 1], occupation)"


@dataclass(frozen=True, kw_only=True)
class MovieLens1M(MovieLens):
    """MovieLens-1M; see `MovieLens` for its settings. An age is the lower end of a range: 1, 18, 25, 35, 45, 50, 56."""

    mirrors: ClassVar[tuple[Mirror, ...]] = (
        Download(
            "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
            sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ),
    )
    layouts: ClassVar[tuple[FileLayout, ...]] = (
        FileLayout(
            ratings=TextFile("ratings.dat", RATING, "::"),
            users=TextFile(
                "users.dat",
                ("user_id", "gender", "age", "occupation", "zip_code"),
                "::",
                encoding="latin-1",
                values={"occupation": _OCCUPATION},
            ),
            films=TextFile(
                "movies.dat",
                ("item_id", "title", "genres"),
                "::",
                encoding="latin-1",
                values={
                    "year": r"regexp_extract(title, '\((\d{4})\)\s*$', 1)",  # Toy Story (1995)
                    "genre": "string_split(genres, '|')",
                },
            ),
        ),
        recbole("ml-1m", occupation=_OCCUPATION),
    )
    published: ClassVar[dict[str, int]] = {"users": 6_040, "items": 3_706, "samples": 1_000_209}
