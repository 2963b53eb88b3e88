"""Counts of training rows, of which each rank reads its share."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from cove_dist.distributed import Collectives
from cove_dist.tasks import frequency
from cove_dist.tasks.frequency import row_counts
from cove_dist.tasks.sequential import build
from data_pipeline.streaming.vocabulary import item_counts
from tests.unit.data.stream_fixtures import interactions, write_folder


class OneOfThree(Collectives):
    """A rank that receives what others counted from a list, and appends what it counted."""

    def __init__(self, rank: int, counted: list[torch.Tensor]) -> None:
        super().__init__()
        self.rank, self.size, self._counted = rank, 3, counted

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self._counted.append(values.clone())
        return values


def test_ranks_count_every_row_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = write_folder(tmp_path, {"train": interactions(700, 40)}, group_rows=(64, 10))
    whole = row_counts(tmp_path, schema)
    counted: list[torch.Tensor] = []
    for rank in range(3):
        ranks = OneOfThree(rank, counted)
        monkeypatch.setattr(frequency, "world", lambda ranks=ranks: ranks)
        row_counts(tmp_path, schema)
    for start, (table, expected) in enumerate(whole.items()):
        shares = counted[start :: len(whole)]
        assert torch.stack(shares).sum(0).tolist() == expected.tolist()
        assert all(0 < share.sum() < expected.sum() for share in shares), table


def test_ranks_sum_what_they_counted_for_sampling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schema = write_folder(tmp_path, {"train": interactions(700, 40)}, group_rows=(64, 10))
    config: Any = Mock()
    config.data.path, config.sequential.sampled_power = str(tmp_path), 0.75
    whole = build.probabilities(config, schema)
    counted: list[torch.Tensor] = []
    monkeypatch.setattr(build, "world", lambda: OneOfThree(1, counted))
    build.probabilities(config, schema)
    assert counted[0].tolist() == item_counts(tmp_path, schema, 1, 3).tolist()
    weights = np.maximum(item_counts(tmp_path, schema), 1) ** 0.75
    assert whole.tolist() == (weights / weights.sum()).tolist()
