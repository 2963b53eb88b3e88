"""The tests of ``tests/gpu`` on the device, recorded one by one, so that a time limit keeps those that have ended.

    python benchmarks/gpu/check_tests.py ARGUMENT ...

runs pytest with the arguments; to standard output it writes a line of JSON with the names of the tests, and one for
each test that has ended, and what pytest prints to standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from clock import Bench

    from results import Row

ROOT = Path(__file__).resolve().parents[2]


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Run all files in one process, which shares the runs that the tests train; a row waits for its test to end."""
    files = sorted((ROOT / "tests" / "gpu").glob("test_*.py"))
    lines = start([str(file) for file in (files if not bench.tiny else files[:1])])
    names = json.loads(next(lines, "[]"))
    if not names:
        yield "collection", partial(fail, "no tests were collected; see log.txt")
    reports: dict[str, Row] = {}
    for name in names:
        yield name.removeprefix("tests/gpu/"), partial(row_of, name, lines, reports, bench.device.type)


def start(files: list[str]) -> Iterator[str]:
    """Start pytest, and return the lines of this module's program."""
    command = [sys.executable, __file__, "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *files]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return iter(process.stdout)


def fail(reason: str) -> Row:
    raise RuntimeError(reason)


def row_of(name: str, lines: Iterator[str], reports: dict[str, Row], device_type: str) -> Row:
    """Return the report of a test, once it is there; a skipped one is a failure where there is a device.

    Raises:
        RuntimeError: pytest ended before the test.
    """
    for line in lines if name not in reports else ():
        report = json.loads(line)
        reports[report.pop("name")] = report
        if name in reports:
            break
    if name not in reports:
        raise RuntimeError("pytest ended before it; see log.txt")
    row = reports[name]
    return row | {"ok": False} if "skipped" in row and device_type != "cpu" else row


class Lines:
    """Plugin of pytest that writes the lines.

    Args:
        target: Where to.
    """

    def __init__(self, target: IO[str]) -> None:
        self._target = target
        self._row: Row = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._write([item.nodeid for item in session.items])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Join the reports of a test's setup, call and teardown."""
        if report.when == "setup":
            self._row = {"name": report.nodeid, "ok": True, "seconds": 0.0}
        self._row["seconds"] += report.duration
        if report.skipped:
            del self._row["ok"]
            self._row["skipped"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self._row |= {"ok": False, report.when: str(crash.message if crash else report.longrepr)[:300]}
        if report.when == "teardown":
            self._write(self._row)

    def _write(self, value: Any) -> None:
        self._target.write(json.dumps(value) + "\n")
        self._target.flush()


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w") as output:
        os.dup2(2, 1)
        sys.exit(pytest.main(sys.argv[1:], plugins=[Lines(output)]))
