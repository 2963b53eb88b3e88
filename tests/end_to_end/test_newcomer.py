"""A newcomer with the built wheel alone, in an empty folder: from a CSV file to recommendations."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import cove_dist as cove, data_pipeline
assert "site" in cove.__file__ and "site" in data_pipeline.__file__
columns = {"user": "uid", "item": "iid", "label": None, "rating": "stars", "threshold": 4}
data = cove.prepare("ratings.csv", "data/mine", settings=columns)
small = {"embeddings.dim": 8, "trainer.max_steps": 4, "trainer.batch_size": 64, "model.hidden_units": [16]}
run = cove.train(data, "deepfm", "cove", "runs/mine", settings=small)
print(run.evaluate("test"), run.score(users=["u1"], items=[3]))
print(run.predict("ratings.csv", user="uid", item="iid", unknown="skip").num_rows)
print(run.recommend(["u1"], k=3).to_pylist(), run.codes("item").num_rows, run.embeddings("user").num_rows)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the wheel installs, in a folder of its own."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    [wheel] = folder.glob("*.whl")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder / "site")]
    subprocess.run([*install, str(wheel)], check=True)
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"cove_dist", "data_pipeline"}
    return folder / "site"


def test_from_an_empty_folder_to_recommendations(site: Path, tmp_path: Path) -> None:
    rows = (f"u{i % 30},{i * 7 % 23},{1 + i * i % 5}" for i in range(1500))
    (tmp_path / "ratings.csv").write_text("uid,iid,stars\n" + "\n".join(rows) + "\n")
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    cove = str(site / "bin" / "cove")
    commands = (
        [sys.executable, "-c", PROGRAM],
        [cove, "export", "run=runs/mine", "device=cpu"],
        [cove, "train", "--help"],
    )
    for command in commands:
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    assert "trainer:" in done.stdout
    assert len(pq.read_table(tmp_path / "runs" / "mine" / "codes" / "item")) == 23
