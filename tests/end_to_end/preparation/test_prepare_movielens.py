"""MovieLens from small files in each of its layouts; the real files are downloaded when they are prepared."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from data_pipeline.datasets.movielens import MovieLens
from data_pipeline.datasets.movielens_1m import MovieLens1M
from data_pipeline.datasets.movielens_100k import MovieLens100K
from data_pipeline.errors import DataError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from tests.unit.data.prepare_helpers import read_decoded

RATINGS = [
    (1 + k % 3, 1 + k // 3, 1 + k % 5, 880_000_000 + k // 2) for k in range(60)
]  # 3 users, 20 films, two ratings per second
PEOPLE = [(1, 24, "M", "programmer"), (2, 56, "F", "K-12 student"), (3, 18, "M", "writer")]
CODES = {"programmer": 12, "K-12 student": 10, "writer": 20}  # in MovieLens-1M
YEARS = {film: 1980 + film for film in range(1, 20)}  # film 20 has none
GENRES = {film: ["Drama"] if film % 2 else ["Animation", "Children's", "Sci-Fi"] for film in range(1, 22)}
FLAGS = {"Animation": 3, "Children's": 4, "Drama": 8, "Sci-Fi": 15}  # in MovieLens-100K, from 0
FILMS = range(1, 22)  # nobody rated film 21


def write_lines(path: Path, rows: Iterable[Iterable[Any]], delimiter: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(delimiter.join(map(str, row)) + "\n" for row in rows), encoding=encoding)


def write_100k_grouplens(folder: Path) -> None:
    films = []
    for film in FILMS:
        date = f"01-Jan-{YEARS[film]}" if film in YEARS else ""
        flags = [int(place in {FLAGS[genre] for genre in GENRES[film]}) for place in range(19)]
        films.append((film, "Séance", date, "", "http://us.imdb.com", *flags))
    write_lines(folder / "u.data", RATINGS, "\t")
    write_lines(folder / "u.user", [(*person, "12345") for person in PEOPLE], "|", "latin-1")
    write_lines(folder / "u.item", films, "|", "latin-1")


def write_1m_grouplens(folder: Path) -> None:
    users = [(user, gender, age, CODES[occupation], "12345") for user, age, gender, occupation in PEOPLE]
    titles = {film: f"Séance, Die ({YEARS[film]})" if film in YEARS else "Séance" for film in FILMS}
    write_lines(folder / "ratings.dat", RATINGS, "::")
    write_lines(folder / "users.dat", users, "::", "latin-1")
    write_lines(
        folder / "movies.dat", [(film, titles[film], "|".join(GENRES[film])) for film in FILMS], "::", "latin-1"
    )


def write_recbole(folder: Path, name: str, codes: dict[str, int]) -> None:
    ratings = ("user_id:token", "item_id:token", "rating:float", "timestamp:float")
    users = ("user_id:token", "age:token", "gender:token", "occupation:token", "zip_code:token")
    films = ("item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq")
    people = [(user, age, gender, codes.get(job, job), "12345") for user, age, gender, job in PEOPLE]
    rows = [(film, '"Séance', YEARS.get(film, "unkonwn"), " ".join(GENRES[film])) for film in FILMS]
    write_lines(folder / f"{name}.inter", [ratings, *RATINGS], "\t")
    write_lines(folder / f"{name}.user", [users, *people], "\t")
    write_lines(folder / f"{name}.item", [films, *rows], "\t")


FORMS = {
    "100k-grouplens": (MovieLens100K, write_100k_grouplens),
    "100k-recbole": (MovieLens100K, lambda folder: write_recbole(folder, "ml-100k", {})),
    "1m-grouplens": (MovieLens1M, write_1m_grouplens),
    "1m-recbole": (MovieLens1M, lambda folder: write_recbole(folder, "ml-1m", CODES)),
}


@pytest.fixture(params=FORMS)
def written(request, tmp_path) -> tuple[type[MovieLens], Path]:
    dataset, write = FORMS[request.param]
    write(tmp_path / "raw")
    return dataset, tmp_path / "raw"


def decoded(dataset: type[MovieLens], source: Path, folder: Path, **settings) -> dict[str, list[dict]]:
    prepare(dataset(source=str(source), **settings), folder, name="movielens")
    return read_decoded(folder)


def categories(folder: Path, column: str, kind: str) -> dict:
    """Return the category of each original id; the encoded ids must be those of the id table."""
    rows = pq.read_table(folder / "categories" / f"{column}.parquet").to_pylist()
    ids = pq.read_table(folder / "ids" / f"{column}.parquet")["original_id"].to_pylist()
    assert [ids[row["id"]] for row in rows] == [row["original_id"] for row in rows]
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    return {row["original_id"]: row[kind] for row in rows}


def test_ratings_of_4_and_5_are_positive(tmp_path, written):
    rows = decoded(*written, tmp_path / "out")
    read = {(row["user_id"], row["item_id"], row["label"]) for split in rows.values() for row in split}
    assert read == {(user, item, float(rating >= 4)) for user, item, rating, _ in RATINGS}
    assert {split: len(part) for split, part in rows.items()} == {"train": 48, "validation": 6, "test": 6}
    assert {row["item_id"] for row in rows["train"]} == set(range(1, 17))  # each user's first 16 of 20
    report = Report.load(tmp_path / "out")
    assert (report.users, report.items, report.samples, report.interactions) == (3, 20, 60, 24)


def test_side_information_adds_features_and_changes_no_row(tmp_path, written):
    plain = decoded(*written, tmp_path / "plain")
    rows = decoded(*written, tmp_path / "out", side_information=True)
    ids = ("user_id", "item_id", "label")
    assert {split: [{key: row[key] for key in ids} for row in part] for split, part in rows.items()} == plain
    people = {user: (gender, occupation, age) for user, age, gender, occupation in PEOPLE}
    mean_year = sum(YEARS.values()) / len(YEARS)
    for row in (row for part in rows.values() for row in part):
        assert (row["gender"], row["occupation"], row["age"]) == people[row["user_id"]]
        assert row["release_year"] == YEARS.get(row["item_id"], mean_year)


def test_genres_and_occupations_are_kept_as_categories_of_rated_ids(tmp_path, written):
    decoded(*written, tmp_path / "out")
    assert categories(tmp_path / "out", "item_id", "genre") == {film: GENRES[film] for film in range(1, 21)}
    assert set(categories(tmp_path / "out", "item_id", "title")) == set(range(1, 21))
    assert categories(tmp_path / "out", "user_id", "occupation") == {user: job for user, _, _, job in PEOPLE}


def test_films_without_genres_are_left_out(tmp_path):
    write_1m_grouplens(tmp_path / "raw")
    films = tmp_path / "raw" / "movies.dat"
    lines = films.read_text("latin-1").splitlines()
    films.write_text("\n".join([lines[0].rpartition("::")[0] + "::", *lines[1:]]) + "\n", "latin-1")
    decoded(MovieLens1M, tmp_path / "raw", tmp_path / "out")
    assert set(categories(tmp_path / "out", "item_id", "genre")) == set(range(2, 21))


def test_a_zip_or_only_the_ratings_file(tmp_path):
    folder = tmp_path / "ml-100k"
    write_100k_grouplens(folder)
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"ml-100k/{file.name}")
    whole = decoded(MovieLens100K, tmp_path / "ml-100k.zip", tmp_path / "a", side_information=True)
    assert len(whole["train"]) == 48
    (folder / "u.user").unlink()
    assert len(decoded(MovieLens100K, folder / "u.data", tmp_path / "b")["train"]) == 48
    assert [path.name for path in (tmp_path / "b" / "categories").iterdir()] == ["item_id.parquet"]
    with pytest.raises(DataError, match=r"u\.user: no such file.*data\.side_information=false"):
        decoded(MovieLens100K, folder, tmp_path / "c", side_information=True)


@pytest.mark.parametrize(
    "line, message",
    [
        ("4::F::25", r"users\.dat: cannot be read: .*Line: 4.*data\.on_invalid=drop"),
        ("3::F::25::1::12345", r"users\.dat: user_id '3' is in more than one line.*data\.on_invalid=drop"),
    ],
)
def test_an_invalid_line_of_users_or_films_is_refused_or_left_out(tmp_path, line, message):
    write_1m_grouplens(tmp_path / "raw")
    with (tmp_path / "raw" / "users.dat").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=f"(?s){message}"):
        decoded(MovieLens1M, tmp_path / "raw", tmp_path / "out")
    rows = decoded(MovieLens1M, tmp_path / "raw", tmp_path / "out", on_invalid="drop", side_information=True)
    assert sum(map(len, rows.values())) == len(RATINGS)
    report = Report.load(tmp_path / "out")
    assert (report.rows_read, report.rows_dropped) == (len(RATINGS), {})  # its lines are no rows
    malformed = line.count("::") == 2
    assert ["malformed lines were left out of the users" in each for each in report.warnings] == [True] * malformed
    assert categories(tmp_path / "out", "user_id", "occupation") == {user: job for user, _, _, job in PEOPLE}


def test_counts_that_differ_from_the_published_ones_are_logged_as_a_warning(tmp_path, caplog):
    write_100k_grouplens(tmp_path / "raw")
    decoded(MovieLens100K, tmp_path / "raw", tmp_path / "out")
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning == (
        "movielens: counts differ from the published ones: 3 users instead of 943, 20 items instead of 1,682,"
        " 60 samples instead of 100,000"
    )
    summary = Report.load(tmp_path / "out").summary()
    assert summary["users"] == "3; published: 943"


def test_a_folder_without_ratings(tmp_path):
    with pytest.raises(DataError, match=r"contains neither u\.data nor ml-100k\.inter"):
        decoded(MovieLens100K, tmp_path, tmp_path / "out")


@pytest.mark.parametrize("dataset", [MovieLens100K, MovieLens1M])
def test_an_unreachable_source_is_an_error_and_never_other_data(tmp_path, monkeypatch, dataset):
    monkeypatch.setattr(dataset, "mirrors", ())
    with pytest.raises(DataError, match="cannot be downloaded"):
        prepare(dataset(), tmp_path / "out", name="movielens")
    assert not list(tmp_path.iterdir())
