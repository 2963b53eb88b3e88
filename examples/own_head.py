"""A model of one's own, outside the package: one class, one YAML file, and two environment variables.

python examples/own_head.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

import cove_dist as cove
from cove_dist.models.ctr.base import CTRHead
from cove_dist.types import PositiveInt


class Bilinear(CTRHead):
    """``logit = user · W · item``, and a linear function of all fields and dense columns.

    Args:
        num_fields, embedding_dim, num_dense: Given by the task.
        rank: Of the matrix W.
    """

    def __init__(self, num_fields: int, embedding_dim: int, num_dense: int, *, rank: PositiveInt = 8) -> None:
        super().__init__()
        self.left, self.right = (nn.Linear(embedding_dim, rank, bias=False) for _ in range(2))
        self.linear = nn.Linear(num_fields * embedding_dim + num_dense, 1)

    def forward(self, fields: torch.Tensor, dense: torch.Tensor) -> torch.Tensor:
        """Return logits ``[B]`` of ``fields [B, F, d]`` and ``dense [B, D]``."""
        bilinear = (self.left(fields[:, 0]) * self.right(fields[:, 1])).sum(dim=1)
        return bilinear + self.linear(torch.cat([fields.flatten(1), dense], dim=1)).squeeze(1)


def main(folder: Path) -> cove.Run:
    """Train the model on data of one's own, in a folder."""
    sys.path.insert(0, str(Path(__file__).parent))
    from own_data import SMALL, write_ratings

    (folder / "groups" / "model").mkdir(parents=True)
    (folder / "groups" / "model" / "bilinear.yaml").write_text("_target_: own_head.Bilinear\nrank: 4\n")
    os.environ |= {"COVE_CONFIG_DIR": str(folder / "groups"), "COVE_ALLOW_TARGETS": "own_head"}
    write_ratings(folder / "ratings.csv")
    columns = {"user": "uid", "item": "iid", "label": None, "rating": "stars", "threshold": 4, "time": "ts"}
    data = cove.prepare(folder / "ratings.csv", folder / "data", settings=columns)
    run = cove.train(data, model="bilinear", output=folder / "run", settings={**SMALL, "model.rank": 6})
    print(run.score(["u1", "u1"], ["i1", "i2"]))
    return run


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
