"""Replicas as threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from cove_dist.quantization import Replicas

T = TypeVar("T")


def on_replicas(world_size: int, function: Callable[[Replicas], T]) -> list[T]:
    """What ``function(replicas)`` returns on each of ``world_size`` replicas, by rank."""
    barrier, tensors = threading.Barrier(world_size, timeout=10), {}

    def run(rank: int) -> T:
        def all_reduce(tensor: torch.Tensor) -> None:
            tensors[rank] = tensor.clone()
            barrier.wait()
            tensor.copy_(sum(tensors[other] for other in range(world_size)))
            barrier.wait()

        try:
            return function(Replicas(rank, world_size, all_reduce))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(world_size) as pool:
        return list(pool.map(run, range(world_size)))
