"""The table of all speeds: made from the files of measurements, with misses said."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))
benchmark = importlib.import_module("speed_table")
sys.path.remove(str(REPOSITORY / "benchmarks"))

STEP = {
    "model": "bprmf", "batch_size": 1024, "threads": 1, "ms_a_step": 2.6, "bare_ms_a_step": 2.0,
    "ratio": 1.3, "lowest": 1.2, "highest": 1.5,
}  # fmt: skip


def written(folder: Path, name: str, content: dict[str, Any]) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content))


def test_the_readme_has_the_table_of_its_files() -> None:
    table = benchmark.speed_table(REPOSITORY / "results/speed", REPOSITORY / "results/recbole").markdown()
    between = (
        (REPOSITORY / "results/speed/README.md").read_text().partition(benchmark.BEGIN)[2].partition(benchmark.END)[0]
    )
    assert between.strip() == table.strip(), "run: python benchmarks/speed_table.py --readme results/speed/README.md"


@pytest.mark.parametrize(("size", "ratio", "goal"), [(1024, 1.3, "≤ 1.3: met"), (4096, 1.3, "≤ 1.15: missed")])
def test_a_goal_is_met_or_missed(size: int, ratio: float, goal: str, tmp_path: Path) -> None:
    content = {"measured": {"date": "2026-01-02"}, "results": [{**STEP, "batch_size": size, "ratio": ratio}]}
    written(tmp_path / "speed", "bare", content)
    (row,) = benchmark.speed_table(tmp_path / "speed", tmp_path / "none").rows
    work = f"training step, bprmf, batch {size:,}, 1 thread"
    assert row == (work, "2.6 ms", "bare loop of torch: 2.0 ms", "1.30 (1.20 to 1.50)", goal, "2026-01-02")


def test_cpu_time_is_not_taken_for_time(tmp_path: Path) -> None:
    source = {"ms": 9.0, "ratio": 1.5, "lowest": 1.4, "highest": 1.6}
    written(
        tmp_path / "speed", "negatives", {"clock": "cpu", "results": {"bprmf": {"uniform": source, "COVE": source}}}
    )
    written(tmp_path / "speed", "bare", {"clock": "time", "results": [STEP]})
    names = {row[0] for row in benchmark.speed_table(tmp_path / "speed", tmp_path / "none").rows}
    assert names == {"training step, bprmf, COVE, CPU time", "training step, bprmf, batch 1,024, 1 thread"}


def test_what_never_was_as_good_as_recbole_is_said(tmp_path: Path) -> None:
    recbole = {"model": "bprmf", "contestant": "RecBole", "epoch_s": 2.0, "evaluation_s": None, "until_s": 40.0}
    ours = {"model": "bprmf", "contestant": "ours", "epoch_s": 1.0, "epoch_ratio": 2.0, "until_s": None}
    written(tmp_path / "recbole", "toys_bprmf", {"summary": [recbole, ours]})
    epoch, until = benchmark.speed_table(tmp_path / "none", tmp_path / "recbole").rows
    assert epoch == ("epoch, bprmf on toys", "1.00 s", "RecBole: 2.00 s", "2.00", "≥ 3: missed", "earlier")
    assert until[1:] == ("not reached", "RecBole: 40.00 s", "", "", "earlier")


def test_the_first_step_ends_with_its_stages(tmp_path: Path) -> None:
    stages = {"imports": 4.0, "configuration": 0.5, "build": 0.5, "first_step": 0.75, "validation": 9.0}
    runs = {"cove train --help": {"s": 0.25}, "one step": {"s": 15.0, "stages": stages}, "20 epochs": {"s": 20.0}}
    written(tmp_path / "speed", "startup", {"results": runs})
    rows = benchmark.speed_table(tmp_path / "speed", tmp_path / "none").rows
    assert [(row[1], row[4]) for row in rows] == [
        ("0.2 s", "≤ 0.5 s: met"),
        ("5.8 s", "≤ 6 s: met"),
        ("20.0 s", "≤ 10 s: missed"),
    ]
