"""The commands that are written with results."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from cove_dist.cli import parse_flags
from cove_dist.commands.written import written_command

LINE = [
    "--config-dir=mine",
    "--config-dir",
    "/else/a b",
    "allow_targets=[my_package,other.module]",
    "grid",
    "seeds=[0,1]",
]


@pytest.fixture(autouse=True)
def nothing_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COVE_CONFIG_DIR", "COVE_ALLOW_TARGETS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr("cove_dist.cli.check_own_folders", lambda: None)
    monkeypatch.chdir(tmp_path)


def test_folders_and_packages_of_ones_own_are_in_it() -> None:
    _, rest = parse_flags(LINE)
    command = written_command("experiment", rest)
    assert shlex.split(command) == [
        *("cove", "experiment", "--config-dir=mine", "--config-dir=/else/a b"),
        *("allow_targets=[my_package,other.module]", "grid", "seeds=[0,1]"),
    ]


def test_without_any_it_is_the_arguments() -> None:
    assert written_command("tune", ["tune_movielens"]) == "cove tune tune_movielens"
