"""MovieLens-100K: 943 users, 1,682 films, 100,000 ratings from 1 to 5.

It is downloaded from GroupLens, or else from a wheel on the Python package index that contains the same ratings. Two
layouts are read::

    GroupLens   u.data (user, item, rating, time; tabs, no header)   u.user, u.item (bars, no header)
    RecBole     ml-100k.inter, .user, .item (tabs, a typed header)
"""

from dataclasses import dataclass
from typing import ClassVar

from data_pipeline.datasets.movielens import RATING, FileLayout, MovieLens, TextFile, recbole
from data_pipeline.preparation.acquire import Download, Mirror, Wheel
from data_pipeline.preparation.workspace import literal, quoted

_IN_WHEEL = "recbole/dataset_example/ml-100k/ml-100k"
_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)  # the order of the flags in u.item, its last fields (see the README of ml-100k.zip)
_FLAGGED = ", ".join(f"if({quoted(genre)} = '1', {literal(genre)}, NULL)" for genre in _GENRES)


@dataclass(frozen=True, kw_only=True)
class MovieLens100K(MovieLens):
    """MovieLens-100K; see `MovieLens` for its settings."""

    mirrors: ClassVar[tuple[Mirror, ...]] = (
        Download(
            "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
            sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        ),
        Wheel(
            "recbole==1.2.1",
            wheel="recbole-1.2.1-py3-none-any.whl",
            sha256={
                f"{_IN_WHEEL}.inter": "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff",
                f"{_IN_WHEEL}.user": "4f670007d9cfbeb9807e757209af1555b9bcc186bde25e767f67cb67c6dd5972",
                f"{_IN_WHEEL}.item": "51d7cdf777ce5c0f5b32c1d947a4a81fe07d75e78abbe761e0cd4d0756064532",
            },
        ),
    )
    layouts: ClassVar[tuple[FileLayout, ...]] = (
        FileLayout(
            ratings=TextFile("u.data", RATING),
            users=TextFile("u.user", ("user_id", "age", "gender", "occupation", "zip_code"), "|", encoding="latin-1"),
            films=TextFile(
                "u.item",
                ("item_id", "title", "release_date", "video_date", "url", *_GENRES),
                "|",
                encoding="latin-1",
                values={
                    "year": "right(release_date, 4)",  # 01-Jan-1995
                    "genre": f"nullif(list_filter([{_FLAGGED}], lambda genre: genre IS NOT NULL), [])",
                },
            ),
        ),
        recbole("ml-100k"),
    )
    published: ClassVar[dict[str, int]] = {"users": 943, "items": 1_682, "samples": 100_000}
