"""Communication among replicas of a codebook, independent of process groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Replicas:
    """The processes that hold the same codebooks.

    Attributes:
        rank, world_size: Rank of this process and number of processes.
        all_reduce: Function that sums a tensor over all processes, in place, with bit-identical results on each.
    """

    rank: int
    world_size: int
    all_reduce: Callable[[torch.Tensor], object]


ALONE = Replicas(rank=0, world_size=1, all_reduce=lambda tensor: tensor)


def generator(device: torch.device, *key: int) -> torch.Generator:
    """Return a random generator seeded by the key; torch's default generator is unchanged."""
    return torch.Generator(device).manual_seed(hash(key) & (2**63 - 1))  # hashes of integers are the same everywhere
