"""MovieLens-100K from small files in both of its forms; the real one is fetched when it is prepared."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from data_pipeline.datasets import movielens_100k
from data_pipeline.datasets.movielens_100k import MovieLens100K
from data_pipeline.errors import DataError
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.report import Report
from tests.unit.data.prepare_helpers import read_decoded

RATINGS = [
    (1 + k % 3, 1 + k // 3, 1 + k % 5, 880_000_000 + k // 2) for k in range(60)
]  # 3 users, 20 films, two ratings a second
USERS = [(1, 24, "M", "technician"), (2, 53, "F", "other"), (3, 23, "M", "writer")]
YEARS = {film: 1980 + film for film in range(1, 20)}  # film 20 has none


def write_grouplens(folder: Path) -> Path:
    folder.mkdir()
    (folder / "u.data").write_text("".join("\t".join(map(str, row)) + "\n" for row in RATINGS))
    (folder / "u.user").write_text("".join("|".join(map(str, row)) + "|12345\n" for row in USERS))
    films = [
        f"{film}|Séance ({YEARS.get(film)})|{f'01-Jan-{YEARS[film]}' if film in YEARS else ''}||0"
        for film in range(1, 21)
    ]
    (folder / "u.item").write_text("\n".join(films) + "\n", encoding="latin-1")
    return folder


def write_recbole(folder: Path) -> Path:
    folder.mkdir()
    header = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    (folder / "ml-100k.inter").write_text(header + "".join("\t".join(map(str, row)) + "\n" for row in RATINGS))
    users = "".join("\t".join(map(str, row)) + "\t12345\n" for row in USERS)
    (folder / "ml-100k.user").write_text(
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token\n" + users
    )
    films = "".join(f'{film}\t"Séance\t{YEARS.get(film, "unkonwn")}\tDrama\n' for film in range(1, 21))
    (folder / "ml-100k.item").write_text(
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + films
    )
    return folder


@pytest.fixture(params=[write_grouplens, write_recbole], ids=["grouplens", "recbole"])
def source(request, tmp_path) -> Path:
    return request.param(tmp_path / "ml-100k")


def decoded(folder: Path, **settings) -> dict[str, list[dict]]:
    prepare(MovieLens100K(**settings), folder, name="movielens_100k")
    return read_decoded(folder)


def test_ratings_of_4_and_5_are_positive(tmp_path, source):
    rows = decoded(tmp_path / "out", source=str(source))
    read = {(row["user_id"], row["item_id"], row["label"]) for split in rows.values() for row in split}
    assert read == {(user, item, float(rating >= 4)) for user, item, rating, _ in RATINGS}
    assert {split: len(part) for split, part in rows.items()} == {"train": 48, "validation": 6, "test": 6}
    assert {row["item_id"] for row in rows["train"]} == set(range(1, 17))  # each user's first 16 of 20
    report = Report.load(tmp_path / "out")
    assert (report.users, report.items, report.samples, report.interactions) == (3, 20, 60, 24)


def test_side_information_adds_features_and_changes_no_row(tmp_path, source):
    plain = decoded(tmp_path / "plain", source=str(source))
    rows = decoded(tmp_path / "out", source=str(source), side_information=True)
    ids = ("user_id", "item_id", "label")
    assert {split: [{key: row[key] for key in ids} for row in part] for split, part in rows.items()} == plain
    people = {user: (gender, occupation, age) for user, age, gender, occupation in USERS}
    mean_year = sum(YEARS.values()) / len(YEARS)
    for row in (row for part in rows.values() for row in part):
        assert (row["gender"], row["occupation"], row["age"]) == people[row["user_id"]]
        assert row["release_year"] == YEARS.get(row["item_id"], mean_year)


def test_a_zip_or_the_ratings_file_alone(tmp_path):
    folder = write_grouplens(tmp_path / "ml-100k")
    with zipfile.ZipFile(tmp_path / "ml-100k.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"ml-100k/{file.name}")
    whole = decoded(tmp_path / "a", source=str(tmp_path / "ml-100k.zip"), side_information=True)
    assert len(whole["train"]) == 48
    (folder / "u.user").unlink()
    assert len(decoded(tmp_path / "b", source=str(folder / "u.data"))["train"]) == 48
    with pytest.raises(DataError, match=r"u\.user: no such file.*data\.side_information=false"):
        decoded(tmp_path / "c", source=str(folder), side_information=True)


def test_a_folder_without_ratings(tmp_path):
    with pytest.raises(DataError, match=r"holds neither u\.data nor ml-100k\.inter"):
        decoded(tmp_path / "out", source=str(tmp_path))


def test_an_unreachable_source_is_an_error_and_never_other_data(tmp_path, monkeypatch):
    monkeypatch.setattr(movielens_100k, "PLACES", ())
    with pytest.raises(DataError, match="cannot be fetched"):
        decoded(tmp_path / "out")
    assert not list(tmp_path.iterdir())
