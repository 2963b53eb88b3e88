"""Process group and device of this process: the same code under torchrun and in a single process."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from cove_dist.errors import ConfigError


@dataclass(frozen=True)
class DistributedContext:
    """Who this process is."""

    rank: int
    world_size: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def process_group(device: str = "auto", timeout: timedelta = timedelta(minutes=10)) -> Iterator[DistributedContext]:
    """Join torchrun's process group, or make one of a single process.

    Args:
        device: ``cpu``, ``cuda``, or ``auto``: cuda where there is one. A rank takes the GPU of its local rank.
        timeout: after it a collective that some rank never joins fails.

    Raises:
        ConfigError: ``cuda`` was asked for and is not there, or there are more local ranks than GPUs.
    """
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if kind == "cuda":
        found = torch.cuda.device_count()
        if local_world_size > found:
            raise ConfigError(
                f"trainer.device = {device}: {local_world_size} ranks on this host, {found} GPUs;"
                f" use --nproc_per_node={max(found, 1)} or trainer.device=cpu"
            )
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"  # gloo beside nccl carries the checkpoints
    if "RANK" in os.environ:
        dist.init_process_group(backend, timeout=timeout)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    yield DistributedContext(
        rank=dist.get_rank(),
        world_size=dist.get_world_size(),
        local_world_size=local_world_size,
        device=torch.device(kind, local_rank) if kind == "cuda" else torch.device("cpu"),
    )
    # Not after an error: the other ranks may be inside a collective. DDP's reducers hold the group in reference cycles,
    # and gloo's threads abort the interpreter if the group outlives this call.
    gc.collect()
    dist.destroy_process_group()


def max_over_ranks(value: float, device: torch.device) -> float:
    """All-reduced maximum of a number."""
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.item()


def sum_over_ranks(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """All-reduced sum of a vector, on CPU."""
    total = values.to(device)
    dist.all_reduce(total)
    return total.cpu()
