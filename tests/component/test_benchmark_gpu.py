"""The GPU benchmark loses nothing to a section that fails, crashes or hangs, and goes on where it was cut."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

FOLDER = str(Path(__file__).resolve().parents[2] / "benchmarks" / "gpu")
sys.path.insert(0, FOLDER)
benchmark, results, goals = (importlib.import_module(name) for name in ("run", "results", "goals"))
sys.path.remove(FOLDER)


def fail() -> dict[str, Any]:
    raise ValueError("no such kernel")


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[int, dict[str, Any]]]:
    """Run the benchmark with two sections of given cases; return its exit status and the sections' records."""
    monkeypatch.setattr(benchmark, "make_data", lambda *_: None)
    monkeypatch.setattr(benchmark, "GRACE", 0.3)
    monkeypatch.setattr(benchmark, "AGAIN", 0.0)
    monkeypatch.setenv("TRITON_INTERPRET", os.environ.get("TRITON_INTERPRET", "1"))

    def run(first: dict[str, Callable[[], Any]], *options: str, seconds: float = 30) -> tuple[int, dict[str, Any]]:
        sections = {"first_section": first, "second_section": {"measured": lambda: {"ms": 1.5}}}
        monkeypatch.setattr(benchmark, "SECTIONS", dict.fromkeys(sections, 1))
        for name, cases in sections.items():
            module: Any = ModuleType(name)
            module.cases = lambda bench, cases=cases: iter(cases.items())
            monkeypatch.setitem(sys.modules, name, module)
        status = benchmark.main(
            [f"--out={tmp_path}", "--dry-run", f"--seconds={seconds}", f"--work={tmp_path}", *options]
        )
        return status, results.Results(tmp_path).content["sections"]

    return run


def test_a_case_that_raises_costs_nothing_else(call: Callable, tmp_path: Path) -> None:
    status, sections = call({"a": fail, "b": lambda: {"ok": True, "error of": 1e-9}})
    assert status == 1
    assert sections["first_section"]["rows"] == {
        "a": {"error": "ValueError: no such kernel"},
        "b": {"ok": True, "error of": 1e-9},
    }
    assert {record["status"] for record in sections.values()} == {"complete"}
    page = (tmp_path / "summary.md").read_text()
    assert "| a |" in page and "| measured | 1.5 |" in page
    assert "no such kernel" in (tmp_path / "log.txt").read_text()


def test_a_crash_costs_one_case(call: Callable) -> None:
    status, sections = call({"a": lambda: {"ms": 1.0}, "b": lambda: os._exit(11), "c": lambda: {"ms": 2.0}})
    assert status == 1
    rows = sections["first_section"]["rows"]
    assert rows["a"] == {"ms": 1.0} and rows["c"] == {"ms": 2.0}
    assert rows["b"] == {"error": "ended with its process: crashed"}
    assert sections["first_section"]["status"] == "complete"
    assert sections["second_section"]["rows"] == {"measured": {"ms": 1.5}}


def test_an_error_after_which_the_device_is_unusable_costs_one_case(
    call: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "usable", lambda device: False)
    status, sections = call({"a": lambda: {"ms": 1.0}, "b": fail, "c": lambda: {"ms": 2.0}})
    assert status == 1
    rows = {"a": {"ms": 1.0}, "b": {"error": "ValueError: no such kernel"}, "c": {"ms": 2.0}}
    assert sections["first_section"]["rows"] == rows
    assert sections["first_section"]["status"] == "complete"


def test_a_hang_costs_its_section_and_a_second_call_measures_what_is_missing(call: Callable, tmp_path: Path) -> None:
    cases = {"a": lambda: {"ms": 1.0}, "b": lambda: time.sleep(60), "c": lambda: {"ms": 2.0}}
    status, sections = call(cases, seconds=2)
    assert status == 1
    assert sections["first_section"]["status"] == "ended at its time limit"
    assert sections["first_section"]["rows"]["b"] == {"error": "ended with its process: ended at its time limit"}
    assert sections["second_section"]["rows"] == {"measured": {"ms": 1.5}}
    earlier = tmp_path / "earlier.json"
    (tmp_path / "results.json").rename(earlier)
    status, sections = call({"a": fail, "b": lambda: {"ms": 3.0}, "c": lambda: {"ms": 2.0}}, f"--resume={earlier}")
    assert status == 0
    assert sections["first_section"]["rows"] == {"a": {"ms": 1.0}, "b": {"ms": 3.0}, "c": {"ms": 2.0}}


def test_processes_in_sessions_of_their_own_end_with_their_section(call: Callable, tmp_path: Path) -> None:
    """As the workers of torchrun, which a signal to the section's process group does not reach."""

    def hang() -> None:
        started = subprocess.Popen(["sleep", "60"], start_new_session=True)
        (tmp_path / "pid").write_text(str(started.pid))
        started.wait()

    call({"a": hang}, seconds=2)
    status = Path(f"/proc/{(tmp_path / 'pid').read_text()}/stat")
    deadline = time.monotonic() + 10
    while status.is_file() and status.read_text().split()[2] != "Z" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not status.is_file() or status.read_text().split()[2] == "Z"


def test_failed_checks_are_repeated_and_named(tmp_path: Path) -> None:
    kept = results.Results(tmp_path)
    for case, row in {"right": {"ok": True}, "wrong": {"ok": False}, "skipped": {"skipped": "needs CUDA"}}.items():
        kept.add("s", case, row)
    kept.close("s", "complete", 1.0)
    assert kept.settled("s") == ["right", "skipped"]
    assert kept.failures() == ["s, wrong: check failed"]


def test_tests_on_the_device_are_recorded_up_to_the_one_that_ends_their_process(tmp_path: Path) -> None:
    sys.path.insert(0, FOLDER)
    try:
        check = importlib.import_module("check_tests")
    finally:
        sys.path.remove(FOLDER)
    lines = "def test_good(): print('{')\ndef test_bad(): assert 1 == 2\ndef test_skipped(): pytest.skip('no device')\n"
    (tmp_path / "test_some.py").write_text(f"import os, pytest\n{lines}def test_crash(): os._exit(1)\n")
    lines, reports = check.start([str(tmp_path / "test_some.py")]), {}
    good, bad, skipped, crash = json.loads(next(lines))
    assert check.row_of(good, lines, reports, "cuda")["ok"]
    row = check.row_of(bad, lines, reports, "cuda")
    assert not row["ok"] and "assert 1 == 2" in row["call"]
    assert "ok" not in check.row_of(skipped, lines, reports, "cpu")
    assert not check.row_of(skipped, lines, reports, "cuda")["ok"]
    with pytest.raises(RuntimeError, match="pytest ended before it"):
        check.row_of(crash, lines, reports, "cuda")


def test_goals_are_taken_from_the_rows_that_belong_together() -> None:
    training = {
        "deepfm, 65,536, tf32": {"ms": 9.6, "gaps": 0.2},
        "deepfm, COVE, 65,536, tf32": {"ms": 10.0, "gaps": 0.05},
        "bare loop, deepfm, 65,536, tf32": {"ms": 8.64},
        "dcn, 5,000, tf32": {"ms": 3.0, "gaps": 0.4},  # without the others: no goal
        "dcn, COVE, 5,000, tf32": {"error": "out of memory"},
    }
    tables = {
        "adam, 1 M rows": {"ms": 2.0, "x floor": 2.0},
        "adam, 10 M rows": {"ms": 3.0, "x floor": 2.4},
        "adam, 250 M rows": {"skipped": "too large"},
    }
    reached = goals.goals({"speed_training": {"rows": training}, "speed_tables": {"rows": tables}})
    assert {name: (round(row["value"], 3), row["met"]) for name, row in reached.items()} == {
        "deepfm, 65,536, tf32: COVE's share of a step": (0.04, True),
        "deepfm, 65,536, tf32: of the bare loop's speed": (0.9, False),
        "deepfm, 65,536, tf32: gaps": (0.2, False),
        "deepfm, COVE, 65,536, tf32: gaps": (0.05, True),
        "adam: x floor, largest table over smallest": (1.2, False),
    }


def test_kernels_that_overlap_are_counted_once() -> None:
    sys.path[:0] = [FOLDER, str(Path(FOLDER).parent)]
    try:
        union = importlib.import_module("speed_training").union
    finally:
        del sys.path[:2]
    assert union([(0, 4), (1, 2), (3, 5), (7, 8)]) == 6
    assert union([]) == 0


def test_waits_are_told_by_the_innermost_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    sys.path[:0] = [FOLDER, str(Path(FOLDER).parent)]
    try:
        steps = importlib.import_module("check_steps")
    finally:
        del sys.path[:2]

    def stack(*files: str) -> Iterator[SimpleNamespace]:
        return [SimpleNamespace(filename=file, lineno=7) for file in files]

    ours, theirs = str(steps.ROOT / "cove_dist/training/trainer.py"), "/site-packages/torchrec/distributed/dist_data.py"
    monkeypatch.setattr(steps.traceback, "extract_stack", lambda: stack(ours, theirs, "/torch/_tensor.py"))
    assert steps.place() == "torchrec dist_data.py:7"
    monkeypatch.setattr(steps.traceback, "extract_stack", lambda: stack(theirs, ours, "/torch/_tensor.py"))
    assert steps.place() == "cove_dist/training/trainer.py:7"
    monkeypatch.setattr(steps.traceback, "extract_stack", lambda: stack(ours, theirs, "/torch/autograd/graph.py"))
    assert steps.place() == "backward pass"
