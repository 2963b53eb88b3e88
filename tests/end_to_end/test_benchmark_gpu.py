"""The GPU benchmark runs whole on a CPU, tiny: every section is complete and every check passes."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from tests.end_to_end.programs import ROOT
from tests.fork_server import executable


def test_the_dry_run_is_complete(tmp_path: Path) -> None:
    command = [executable(), str(ROOT / "benchmarks" / "gpu" / "run.py"), "--dry-run", "--seconds=540"]
    done = subprocess.run(
        [*command, f"--out={tmp_path / 'out'}", f"--work={tmp_path / 'work'}"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout
    sections = json.loads((tmp_path / "out" / "results.json").read_text())["sections"]
    assert {record["status"] for record in sections.values()} == {"complete"}
    rows = {name: record["rows"] for name, record in sections.items()}
    assert len(rows["check_models"]) == len(list((ROOT / "configs" / "model").glob("*.yaml")))
    assert all(rows.values())
    assert {row["samples/s"] > 0 for row in rows["speed_training"].values()} == {True}
    assert all(name.startswith("test_kernels.py::") and "skipped" in row for name, row in rows["check_tests"].items())
    page = (tmp_path / "out" / "summary.md").read_text()
    assert all(f"## {name}" in page for name in sections)
