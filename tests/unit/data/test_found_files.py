"""Which files a source names, and how often."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from data_pipeline.preparation import inputs
from data_pipeline.preparation.inputs import find_files
from data_pipeline.preparation.workspace import Workspace


def workspace(folder: Path, warnings: list[str]) -> Workspace:
    return cast(Workspace, SimpleNamespace(scratch=folder, on_progress=lambda line: None, warn=warnings.append))


def test_addresses_that_differ_in_the_query_are_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "_open_http", lambda address: BytesIO(address.encode()))
    sources = tuple(f"https://host/export.csv.gz{query}" for query in ("?day=1", "?day=2", "", "?day=1"))
    warnings: list[str] = []
    files = find_files(sources, workspace(tmp_path, warnings))
    assert [file.read_text() for file in files] == list(sources[:3])
    assert [file.suffixes[-2:] for file in files] == [[".csv", ".gz"]] * 3
    assert len(warnings) == 1


def test_a_file_named_several_times_is_read_once(tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    logs.mkdir()
    for name in ("a.csv", "today.csv"):
        (logs / name).write_text("1")
    (tmp_path / "link.csv").symlink_to(logs / "today.csv")
    warnings: list[str] = []
    sources = (str(logs / "today.csv"), str(logs), f"{logs}/*.csv", str(tmp_path / "link.csv"))
    found = find_files(sources, workspace(tmp_path / "scratch", warnings))
    assert found == [logs / "today.csv", logs / "a.csv"]
    repeats = f"4 repeats, such as {logs}/today.csv"
    assert warnings == [f"data.source names files more than once ({repeats}); each is read once"]
    assert find_files(str(logs), workspace(tmp_path / "scratch", warnings)) == [logs / "a.csv", logs / "today.csv"]
    assert len(warnings) == 1
