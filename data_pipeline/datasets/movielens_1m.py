"""MovieLens-1M: 6,040 users, 3,706 rated films of 3,883, 1,000,209 ratings from 1 to 5.

It is fetched from GroupLens. Two forms are read::

    GroupLens   ratings.dat, users.dat, movies.dat (two colons, no header)
    RecBole     ml-1m.inter, .user, .item (tabs, a typed header)
"""

from dataclasses import dataclass
from typing import ClassVar

from data_pipeline.datasets.movielens import RATING, File, Form, MovieLens, recbole
from data_pipeline.preparation.acquire import Download, Place
from data_pipeline.preparation.workspace import literal

_OCCUPATIONS = (
    *("other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service"),
    *("doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer"),
    *("retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman"),
    *("unemployed", "writer"),
)  # what the files' numbers mean, from 0 (see the README of ml-1m.zip)

_OCCUPATION = f"coalesce([{', '.join(map(literal, _OCCUPATIONS))}][TRY_CAST(occupation AS INTEGER) + 1], occupation)"


@dataclass(frozen=True, kw_only=True)
class MovieLens1M(MovieLens):
    """Ages are those of the lower end of a range: 1, 18, 25, 35, 45, 50, 56."""

    places: ClassVar[tuple[Place, ...]] = (
        Download(
            "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
            sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        ),
    )
    forms: ClassVar[tuple[Form, ...]] = (
        Form(
            ratings=File("ratings.dat", RATING, "::"),
            users=File(
                "users.dat",
                ("user_id", "gender", "age", "occupation", "zip_code"),
                "::",
                encoding="latin-1",
                values={"occupation": _OCCUPATION},
            ),
            films=File(
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
