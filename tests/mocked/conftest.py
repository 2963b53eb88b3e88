"""One process that believes itself to be rank 3 of 8."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from cove_dist.distributed import DistributedContext

RANK, WORLD_SIZE = 3, 8


@pytest.fixture
def fake_rank(monkeypatch: pytest.MonkeyPatch) -> Iterator[DistributedContext]:
    # It broadcasts objects from rank 0, and nothing arrives.
    # torchrec 1.6 has no such check.
    validation = "torchrec.distributed.model_parallel.init_collective_validation"
    monkeypatch.setattr(validation, lambda group: None, raising=False)
    dist.init_process_group("fake", store=FakeStore(), rank=RANK, world_size=WORLD_SIZE)
    yield DistributedContext(RANK, WORLD_SIZE, WORLD_SIZE, torch.device("cpu"))
    dist.destroy_process_group()
