"""The tests of ``tests/gpu`` on the device, one by one, as pytest reports them."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from clock import Bench

from results import Row

ROOT = Path(__file__).resolve().parents[2]


def cases(bench: Bench) -> Iterator[tuple[str, Callable[[], Row]]]:
    files = sorted((ROOT / "tests" / "gpu").glob("test_*.py"))
    for file in files if not bench.tiny else files[:1]:
        yield file.stem, partial(run_file, bench, file)


def run_file(bench: Bench, file: Path) -> Row:
    """Run a file of tests; skipped ones are counted, and are failures where there is a device."""
    report = bench.work / f"{file.stem}.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(file)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])})
    [suite] = ElementTree.parse(report).getroot().iter("testsuite")
    counts = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    failed = [case.attrib["name"] for case in suite.iter("testcase") if len(case) and case[0].tag != "skipped"]
    complete = bench.device.type == "cpu" or counts["skipped"] == 0
    return {"ok": done.returncode == 0 and complete, **counts, "failed": ", ".join(failed)}
