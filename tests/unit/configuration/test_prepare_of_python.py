"""The data set and the folder that `cove_dist.prepare` asks for; nothing is read or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest

import cove_dist as cove
from cove_dist.commands import prepare as command
from cove_dist.errors import ConfigError
from data_pipeline.preparation.dataset import Dataset


class Asked(NamedTuple):
    dataset: Dataset
    output: Path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    found: list[Asked] = []
    monkeypatch.setattr(command, "prepare", lambda dataset, output, **_: found.append(Asked(dataset, output)))
    return found


KINDS: dict[str, tuple[tuple[Any, ...], dict[str, Any], dict[str, Any], str]] = {
    "a path": ((Path("a b.csv"), "out"), {}, {"source": "a b.csv", "label": "label"}, "out"),
    "files": ((["a.csv", Path("b,c.csv")], Path("out")), {}, {"source": ("a.csv", "b,c.csv")}, "out"),
    "a ready-made split": (
        (None, "out"),
        {"settings": {"train": "train.csv", "test": ["1.csv", "2.csv"]}},
        {"source": None, "train": "train.csv", "validation_file": None, "test": ("1.csv", "2.csv")},
        "out",
    ),
    "no source": ((), {"settings": {"user": "uid"}}, {"source": "data/raw/*.parquet", "user": "uid"}, "data/custom"),
    "lines of users": ((["a.txt", "b.txt"],), {"data": "user_lines"}, {"file": ("a.txt", "b.txt")}, "data/user_lines"),
    "split lines": (
        (None, "out"),
        {"data": "user_lines", "settings": {"train": "a.txt", "test": "b.txt"}},
        {"file": None, "train": "a.txt", "test": "b.txt"},
        "out",
    ),
    "playlists": (("raw",), {"data": "aotm"}, {"source": "raw", "file": "AotM"}, "data/aotm"),
    "a download": ((), {"data": "movielens_100k"}, {"source": None}, "data/movielens_100k"),
    "encoded": (("clicks",), {"data": "encoded", "settings": {"item": "iid"}}, {"source": "clicks"}, "clicks"),
    "synthetic": ((), {"data": "synthetic", "settings": {"users": 10}}, {"users": 10}, "data/synthetic"),
    "synthetic without a source": ((None, "out"), {"data": "synthetic"}, {"rows": 200_000}, "out"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_prepared(kind: str, asked: list[Asked]) -> None:
    given, named, expected, output = KINDS[kind]
    assert cove.prepare(*given, **named) == Path(output)
    [(dataset, folder)] = asked
    assert {key: getattr(dataset, key) for key in expected} == expected
    assert folder == Path(output)


def test_a_source_of_data_that_are_made_is_refused(asked: list[Asked]) -> None:
    with pytest.raises(ConfigError, match=r"source = a\.csv: data=synthetic reads no raw files; leave source out"):
        cove.prepare("a.csv", data="synthetic")
    with pytest.raises(ConfigError, match="Could not find 'data/movielens'; did you mean movielens_1"):
        cove.prepare("a.csv", data="movielens")
    assert not asked
