"""A model whose class and YAML file are outside the package and the repository."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.configurations import small_run
from tests.fork_server import executable

MINE = """
from cove_dist.models.ctr.base import CTRHead

class Mine(CTRHead):
    def __init__(self, num_fields: int, embedding_dim: int, num_dense: int, *, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, fields, dense):
        return self.scale * fields.prod(dim=1).sum(dim=1)
"""


def test_a_model_of_ones_own_outside_the_package(prepared: Path, tmp_path: Path) -> None:
    """The class is in the current folder, its YAML in another; the run is evaluated without that folder."""
    (tmp_path / "mine_head.py").write_text(MINE)
    (tmp_path / "groups" / "model").mkdir(parents=True)
    (tmp_path / "groups" / "model" / "mine.yaml").write_text("_target_: mine_head.Mine\nscale: 2.0\n")
    settings = [o for o in small_run(prepared, Path("run"), "trainer.max_steps=2") if not o.startswith("model")]
    for arguments in (
        ["train", "--config-dir=groups", "model=mine", "allow_targets=[mine_head]", *settings],
        ["evaluate", "run=run", "device=cpu", "allow_targets=mine_head"],
    ):
        subprocess.run([executable(), "-m", "cove_dist", *arguments], check=True, cwd=tmp_path)
    assert json.loads((tmp_path / "run" / "metrics_test_best.json").read_text())["metrics"]["auc"] is not None
