"""Requests for recommendations, and the files that are written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from cove_dist.errors import ConfigError
from cove_dist.inference.recommend import recommend, write_lists
from data_pipeline.schema import Schema
from tests.checkpoints import write_checkpoint
from tests.component.report.runs import write_run


@pytest.mark.parametrize("more", [[], ["interactions=new.csv"]])
def test_a_batch_size_that_does_nothing_is_refused(more: list[str], prepared: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", prepared, [])
    write_checkpoint(run / "checkpoints", 3, {"auc": 0.6})
    with pytest.raises(ConfigError, match="batch_size = 5: acts on the users of collaborative filtering, without"):
        recommend([f"run={run}", "batch_size=5", *more])


@pytest.mark.parametrize("setting", ["fold_in_steps=5", "fold_in_learning_rate=0.1", "user=uid"])
def test_settings_of_interactions_are_refused_without_them(setting: str, prepared: Path, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", prepared, [])
    write_checkpoint(run / "checkpoints", 3, {"auc": 0.6})
    with pytest.raises(ConfigError, match=rf"{setting.replace('=', ' = ')}: .* of interactions=FILE; remove it"):
        recommend([f"run={run}", setting])


def test_users_who_have_all_items_are_counted(prepared: Path, tmp_path: Path) -> None:
    items = torch.tensor([[3, 4], [-1, -1], [5, -1]])
    batches = iter([(np.arange(3), torch.zeros(3, 2), items), (np.arange(0), torch.zeros(0, 2), items[:0])])
    assert write_lists(batches, np.arange(3), prepared, Schema.load(prepared), tmp_path / "part.parquet") == 1
    assert pq.read_table(tmp_path / "part.parquet")["rank"].to_pylist() == [1, 2, 1]
