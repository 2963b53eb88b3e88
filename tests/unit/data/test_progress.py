"""Preparation says its stages and rows: as a bar on a terminal, as lines elsewhere."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from data_pipeline.datasets.synthetic import Synthetic
from data_pipeline.preparation import progress
from data_pipeline.preparation.prepare import prepare
from data_pipeline.preparation.workspace import open_workspace

SMALL = Synthetic(users=30, items=30, rows=900, implicit=True, split="leave_one_out", candidates=3, core=2)


def test_every_stage_and_its_rows_are_lines_where_there_is_no_terminal(tmp_path: Path) -> None:
    lines: list[str] = []
    console = Console(file=io.StringIO())
    with progress.shown(console, lines.append) as stages:
        prepare(SMALL, tmp_path / "out", name="small", on_progress=stages.begin, on_percent=stages.advance)
    assert lines[:3] == ["generated 900 of 900 rows", "checking 900 rows", "keeping positives of the 2-core"]
    assert [line.split(":")[0] for line in lines if line.startswith("writing")] == [
        "writing train",
        "writing validation",
        "writing test",
    ]
    assert console.file.getvalue() == ""


def test_a_terminal_shows_the_stage_in_a_bar(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress.shown(console, lambda _: None) as stages:
        stages.begin("checking 900 rows")
        stages.advance(40)
        time.sleep(0.3)
    assert "checking 900 rows" in console.file.getvalue()
    assert "40%" in console.file.getvalue()


def test_a_long_query_is_followed_from_another_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_POLL", 0.01)
    monkeypatch.setattr(progress, "LINE_EVERY", 0.0)
    lines: list[str] = []
    stages = progress.Stages(lines.append)
    with open_workspace(
        tmp_path / "scratch", memory_gb=1, seed=0, on_progress=stages.begin, on_percent=stages.advance
    ) as workspace:
        workspace.on_progress("sorting")
        workspace.query("CREATE TABLE a AS SELECT hash(range) AS x FROM range(3000000)")
        workspace.query("CREATE TABLE b AS SELECT * FROM a ORDER BY x")
    shares = [float(line.removeprefix("sorting: ").removesuffix(" %")) for line in lines[1:]]
    assert len(shares) > 1 and all(0 <= share <= 100 for share in shares)
    assert any(0 < share < 100 for share in shares)
