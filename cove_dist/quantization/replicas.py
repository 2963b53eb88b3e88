"""How replicas of a codebook agree, without this package knowing process groups."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Replicas:
    """The processes that hold the same codebooks.

    Attributes:
        rank, world_size: which of them this process is.
        add_up: sums a tensor over all of them, in place, to the same bits on each.
    """

    rank: int
    world_size: int
    add_up: Callable[[torch.Tensor], object]


ALONE = Replicas(rank=0, world_size=1, add_up=lambda tensor: tensor)


def generator(device: torch.device, *key: int) -> torch.Generator:
    """A generator of random numbers that depend on the key alone; torch's default one is left untouched."""
    return torch.Generator(device).manual_seed(hash(key) & (2**63 - 1))  # hashes of integers are the same everywhere
