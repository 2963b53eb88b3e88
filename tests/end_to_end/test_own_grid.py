"""The grid of the documents with a model and a metric of one's own, by the command that they show."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pyarrow.parquet as pq

from tests.end_to_end.documents.commands import ROOT, blocks
from tests.end_to_end.test_own_model import MINE
from tests.fork_server import executable

EXTENDING = ROOT / "docs" / "extending.md"


def write_classes(folder: Path) -> None:
    """``my_package`` and ``groups/``: the metric of the documents, and a model."""
    [module] = [block for block in blocks("python", EXTENDING) if block.startswith("# my_package/extras.py")]
    [metric] = [block for block in blocks("yaml", EXTENDING) if block.startswith("# groups/metric/error.yaml\n")]
    files = {
        "my_package/__init__.py": "",
        "my_package/extras.py": module,
        "my_package/heads.py": MINE,
        "groups/metric/error.yaml": metric.partition("\n")[2],
        "groups/model/mine.yaml": "_target_: my_package.heads.Mine\nscale: 2.0\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def cove(folder: Path, *arguments: str) -> str:
    done = subprocess.run([executable(), "-m", "cove_dist", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_row_and_a_metric_of_ones_own_in_a_grid_of_ones_own(prepared: Path, tmp_path: Path) -> None:
    write_classes(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "small").symlink_to(prepared)
    text = (ROOT / "examples" / "my_grid.yaml").read_text()
    text = text.replace("metric=brier", "metric=error\n  - trainer.early_stopping.metric=error").replace(
        "brier]", "error]"
    )
    (tmp_path / "my_grid.yaml").write_text(text.replace("epochs=3", "epochs=1"))
    [command] = blocks("text", ROOT / "docs" / "experiments.md")
    cove(tmp_path, *shlex.split(command)[1:], 'only=["mine/*"]', "seeds=[0]")
    rows = pq.read_table(tmp_path / "runs" / "my_grid" / "results.parquet").to_pylist()
    found = {row["quantizer"]: row["value"] for row in rows if row["metric"] == "error"}
    assert set(found) == {"none", "cove"} and all(0 < value < 1 for value in found.values())
    assert "mine, error: cove is better than none" in (tmp_path / "runs" / "my_grid" / "tables.md").read_text()
    compared = cove(tmp_path, "compare", "runs=runs/my_grid/mine/*/seed_0", "allow_targets=[my_package]")
    assert all(f"{value:.4f}" in compared for value in found.values())
