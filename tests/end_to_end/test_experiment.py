"""A small grid by the programs themselves: interrupted, resumed, with a failing cell, and its tables at any time."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf

from cove_dist.evaluation.metrics_files import load_metrics
from tests.component.experiments.grids import write_grid, write_search
from tests.end_to_end.programs import ROOT, launch, metrics_of, succeed
from tests.fork_server import executable

SMALL = ('only=["deepfm/*"]', "seeds=[0]")


def begin(program: str, file: Path, *arguments: str) -> subprocess.Popen[bytes]:
    command = [executable(), str(ROOT / "launch" / f"{program}.py"), str(file), *arguments]
    default = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a shell ignores it for what runs in the background
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd=ROOT, preexec_fn=default)


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def validations(folder: Path) -> list[int]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return [record["epoch"] for record in map(json.loads, lines) if record["kind"] == "validation"]


def test_a_failing_cell_is_recorded_and_the_rest_goes_on(prepared: Path, tmp_path: Path) -> None:
    """The failing one names a data folder that comes into being later."""
    grid, later = write_grid(tmp_path, prepared), tmp_path / "later"
    failing = f'quantizers.cove=["quantizer=cove","data.path={later}"]'
    done = launch("experiment", str(grid), *SMALL, failing)
    assert done.returncode == 2
    assert "1/2  deepfm/none/seed_0: test auc 0." in done.stderr
    assert re.search(r"2/2  deepfm/cove/seed_0: failed:\s+.*later/schema.json: no such file", done.stderr, re.DOTALL)
    assert "error: 1 of 2 cells failed: deepfm/cove/seed_0. See cell.log" in done.stderr
    record = json.loads((tmp_path / "runs/deepfm/cove/seed_0/cell.json").read_text())
    assert record["state"] == "failed"
    assert "Prepare the data first" in record["error"]
    tables = (tmp_path / "runs" / "tables.md").read_text()
    assert "| deepfm | cove | failed | failed | 0 of 1, 1 failed |" in tables
    assert re.search(r"- deepfm/cove/seed_0: failed: .*Prepare the data first", tables)
    shutil.copytree(prepared, later)
    done = launch("experiment", str(grid), *SMALL, failing)
    assert done.returncode == 0, done.stderr
    assert "none/seed_0" not in done.stderr, "a finished cell is not repeated"
    assert "1 of 1" in (tmp_path / "runs" / "tables.md").read_text()
    rows = pq.read_table(tmp_path / "runs" / "results.parquet").to_pylist()
    [auc] = [r["value"] for r in rows if (r["quantizer"], r["metric"]) == ("cove", "auc")]
    assert auc == metrics_of(tmp_path / "runs/deepfm/cove/seed_0")["auc"]


def test_interrupted_and_started_again(prepared: Path, tmp_path: Path) -> None:
    """By Ctrl-C in the second cell's training; then the runner alone is killed; then it is left to end."""
    grid = write_grid(tmp_path, prepared)
    longer = '"trainer.epochs=40","trainer.early_stopping.patience=null"'
    arguments = (*SMALL, f'quantizers.cove=["quantizer=cove","trainer.max_steps=null",{longer}]')
    first, second = (tmp_path / "runs" / "deepfm" / name / "seed_0" for name in ("none", "cove"))
    begun = begin("experiment", grid, *arguments)
    wait_for(lambda: list(second.glob("checkpoints/step_*0")))
    begun.send_signal(signal.SIGINT)
    assert begun.wait(timeout=60) == 130
    assert json.loads((second / "cell.json").read_text())["state"] == "interrupted"
    assert "- deepfm/cove/seed_0: begun" in (tmp_path / "runs" / "tables.md").read_text()
    trained, changed = len(validations(second)), (first / "summary.json").stat().st_mtime_ns
    assert 0 < trained < 40

    begun = begin("experiment", grid, *arguments)
    wait_for(lambda: len(validations(second)) > trained)
    begun.kill()
    begun.wait()
    done = launch("experiment", str(grid), *arguments)
    assert done.returncode == 0, done.stderr
    assert "Resumed from" in (second / "cell.log").read_text()
    assert validations(second) == list(range(1, 41)), "every epoch once"
    assert (first / "summary.json").stat().st_mtime_ns == changed
    assert not list(second.glob("metrics_validation*.json"))
    evaluated = load_metrics(second, "test", "best").checkpoint
    assert [path.name for path in second.glob("checkpoints/*")] == [evaluated], "only the best is kept"


def test_several_processes_jobs_and_splits_then_only_tables(prepared: Path, tmp_path: Path) -> None:
    grid = write_grid(tmp_path, prepared)
    more = ("processes=2", "jobs=2", "splits=[validation,test]", "picture=dots", "keep_checkpoints=none")
    out = succeed("experiment", str(grid), *SMALL, *more)
    assert "1 of 1" in out
    cell = tmp_path / "runs" / "deepfm" / "cove" / "seed_0"
    assert json.loads((cell / "summary.json").read_text())["world_size"] == 2
    assert not list(cell.glob("checkpoints/*"))
    assert len(list((tmp_path / "runs").glob("dots_*.png"))) == 2
    results = tmp_path / "elsewhere"
    out = succeed("experiment", str(grid), *more, "tables_only=true", f"results={results}")
    assert "0 of 3" in out
    assert "dlrm/cove/seed_2: missing" in out
    rows = pq.read_table(results / "results.parquet").to_pylist()
    assert {row["split"] for row in rows} == {"validation", "test"}
    assert {row["model"] for row in rows} == {"deepfm"}


@pytest.mark.parametrize(("program", "write"), [("experiment", write_grid), ("tune", write_search)])
def test_help_and_print_config(program: str, write: Callable[[Path], Path], tmp_path: Path) -> None:
    assert "usage:" in succeed(program, "--help")
    file = write(tmp_path)
    printed = OmegaConf.create(succeed(program, str(file), "--print-config", "jobs=5"))
    assert printed.title.startswith("Small")
    assert printed.jobs == 5
    assert list(tmp_path.iterdir()) == [file.parent]
