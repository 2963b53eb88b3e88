"""The process group, the device of this process and all collectives.

The same code runs under torchrun and in a single process. No other module calls ``torch.distributed``, except
`cove_dist.torch_compat`, which this module uses, and the checkpoint modules, which use its checkpoint format.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from cove_dist.errors import ConfigError
from cove_dist.liveness import watched_parent, watched_ranks
from cove_dist.torch_compat import all_gather, reduce_scatter, second_connection, timeout_of
from data_pipeline.streaming.partition import row_block

ProcessGroup = dist.ProcessGroup
T = TypeVar("T")
Indexed = TypeVar("Indexed", torch.Tensor, np.ndarray)


@dataclass(frozen=True)
class DistributedContext:
    """Rank, world size and device of this process."""

    rank: int
    world_size: int
    local_world_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0


@contextmanager
def process_group(device: str = "auto", timeout: timedelta = timedelta(minutes=10)) -> Iterator[DistributedContext]:
    """Join torchrun's process group, or create one with a single process.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` (cuda if available). A rank uses the GPU of its local rank.
        timeout: Time after which a collective fails if a rank does not join it.

    Raises:
        ConfigError: ``cuda`` was requested but is not available, or there are more local ranks than GPUs.
    """
    bound_kernel_cache()
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
    backend = "cpu:gloo,cuda:nccl" if kind == "cuda" else "gloo"  # checkpoints use gloo
    store, rank, world_size = _rendezvous(timeout)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    closes = world_size == 1
    try:
        with watched_parent(), watched_ranks(store, second_connection, rank, world_size, timeout):
            here = torch.device(kind, local_rank) if kind == "cuda" else torch.device("cpu")
            yield DistributedContext(rank, world_size, local_world_size, here)
        closes = True
    finally:
        if closes:  # after an error of one of several ranks the others may be inside a collective
            gc.collect()  # DDP's reference cycles must not outlive the group
            dist.destroy_process_group()


def bound_kernel_cache() -> None:
    """Make oneDNN keep the kernels of fewer shapes, if it was not used yet and the environment names no number.

    By itself it keeps 1024 kernels, about 0.4 MB each, and batches of sequences have ever new shapes.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


def _rendezvous(timeout: timedelta) -> tuple[dist.Store, int, int]:
    """Return the store of all ranks, this rank and their number."""
    if "RANK" not in os.environ:
        return dist.HashStore(), 0, 1
    if (launch := launch_store()) is None:
        return next(dist.rendezvous("env://", timeout=timeout))
    attempt = f"attempt_{os.environ['TORCHELASTIC_RESTART_COUNT']}"  # the addresses of earlier attempts remain
    return dist.PrefixStore(attempt, launch), int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def launch_store() -> dist.Store | None:
    """Return the store that all attempts and ranks of one torchrun share; None without torchrun."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    return dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)


class Collectives:
    """Collective operations among the ranks of a process group; without a group, those of a single process.

    Example::

        ranks = world()
        users = ranks.gather_padded(own_users, -1)  # [ranks.size * n], where n is the most users of any rank

    Args:
        group: Participating ranks; None for this process only, where every operation returns its input.

    Attributes:
        size: Number of ranks.
        rank: Index of this process in the group.
    """

    def __init__(self, group: ProcessGroup | None = None) -> None:
        self._group = group
        self.size = 1 if group is None else group.size()
        self.rank = 0 if group is None else group.rank()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its sum over the ranks, with the same bits on each; return it."""
        return self._reduce(values, dist.ReduceOp.SUM)

    def max(self, values: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its element-wise maximum over the ranks; return it."""
        return self._reduce(values, dist.ReduceOp.MAX)

    def min(self, values: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by its element-wise minimum over the ranks; return it."""
        return self._reduce(values, dist.ReduceOp.MIN)

    def gather(self, block: torch.Tensor) -> torch.Tensor:
        """Return the blocks ``[n, ...]`` of all ranks as ``[size * n, ...]``; n is equal on all ranks."""
        if self._group is None:
            return block
        whole = block.new_empty(self.size * len(block), *block.shape[1:])
        all_gather(whole, block.contiguous(), self._group)
        return whole

    def scatter_sum(self, whole: torch.Tensor) -> torch.Tensor:
        """Sum ``[size * n, ...]`` over the ranks; return this rank's block ``[n, ...]``: the transpose of `gather`."""
        if self._group is None:
            return whole
        block = whole.new_empty(len(whole) // self.size, *whole.shape[1:])
        reduce_scatter(block, whole.contiguous(), self._group)
        return block

    def exchange(self, blocks: torch.Tensor) -> torch.Tensor:
        """Send block r of ``[size * n, ...]`` to rank r; return the blocks that all ranks sent to this one."""
        if self._group is None:
            return blocks
        received = torch.empty_like(blocks, memory_format=torch.contiguous_format)
        dist.all_to_all_single(received, blocks.contiguous(), group=self._group)
        return received

    def longest(self, rows: torch.Tensor) -> int:
        """Return the largest number of rows of any rank. Waits for the device."""
        return len(rows) if self._group is None else int(self.max(torch.tensor(len(rows), device=rows.device)))

    def gather_padded(self, rows: torch.Tensor, value: float, longest: int | None = None) -> torch.Tensor:
        """Gather different numbers of rows.

        Args:
            rows: Rows ``[n, ...]``; n may differ between ranks.
            value: Padding value of the rows from n to ``longest``.
            longest: The largest n, if known; None: compute it with another collective.

        Returns:
            Rows ``[size * longest, ...]``, those of rank r from ``r * longest`` on.
        """
        return self.gather(pad_rows(rows, self.longest(rows) if longest is None else longest, value))

    def block_of(self, rows: int) -> tuple[int, int]:
        """Return the first row of this rank's block of all rows, and the row after its last."""
        return row_block(rows, self.rank, self.size)

    def gather_objects(self, value: T) -> list[T]:
        """Return the picklable value of every rank."""
        if self._group is None:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def _reduce(self, values: torch.Tensor, operation: dist.ReduceOp.RedOpType) -> torch.Tensor:
        if self._group is not None:
            dist.all_reduce(values, operation, group=self._group)
        return values


def world() -> Collectives:
    """Return the collectives of all ranks, or of this process if it has no process group or is the only rank."""
    several = dist.is_initialized() and dist.get_world_size() > 1
    return Collectives(world_group() if several else None)


def world_group() -> ProcessGroup:
    """Return the process group of all ranks, for libraries that ask for it."""
    group = dist.group.WORLD
    assert group is not None, "no process group; call this inside `process_group`"
    return group


def timeout() -> timedelta:
    """Return the time after which a collective fails if a rank does not join it."""
    return timeout_of(world_group())


def open_host_group(at_least: timedelta = timedelta(0)) -> ProcessGroup:
    """Open a gloo group of all ranks for traffic outside of training, with a longer timeout if given. Collective."""
    return dist.new_group(backend="gloo", timeout=max(timeout(), at_least))


def close_group(group: ProcessGroup) -> None:
    """Close a group of `open_host_group`. Collective."""
    dist.destroy_process_group(group)


class DelayedMaximum:
    """Element-wise maximum of a few integers over the ranks, computed in the background.

    Opening, `start`, `result` and `close` are collective calls, in the same order on every rank.
    """

    def __init__(self) -> None:
        self._group = open_host_group() if world().size > 1 else None
        self._sent: tuple[torch.Tensor, dist.Work | None] | None = None

    def start(self, values: list[int]) -> None:
        """Send this rank's values, the same number on every rank."""
        sent, work = torch.tensor(values, device="cpu"), None  # the group uses the CPU
        if self._group is not None:
            work = dist.all_reduce(sent, dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._sent = (sent, work)

    def result(self) -> list[int] | None:
        """Return the maxima of the values sent last; None if nothing was sent since the previous result."""
        if self._sent is None:
            return None
        (sent, work), self._sent = self._sent, None
        if work is not None:
            work.wait()
        return sent.tolist()

    def close(self) -> None:
        """Close the connections."""
        if self._group is not None:
            close_group(self._group)


def barrier(group: ProcessGroup | None = None) -> None:
    """Wait until all ranks of a group, or all ranks, have arrived."""
    dist.barrier(group=group)


def pad_rows(rows: torch.Tensor, length: int, value: float = 0.0) -> torch.Tensor:
    """Append rows of one value up to a length.

    Args:
        rows: Rows ``[n, ...]``, n at most ``length``.
        length: Number of rows of the result.
        value: Value of the appended rows.
    """
    missing = length - len(rows)
    return torch.cat([rows, rows.new_full((missing, *rows.shape[1:]), value)]) if missing else rows


def batches_of_block(values: Indexed, batch_size: int, ranks: Collectives) -> Iterator[Indexed]:
    """Split this rank's block of values into batches; all ranks get the same number, some may be empty.

    Args:
        values: Values ``[n, ...]``, the same on all ranks.
        batch_size: Number of values per batch of a rank.
        ranks: Ranks that share the values.
    """
    first, last = ranks.block_of(len(values))
    own = values[first:last]
    for start in range(0, -(-len(values) // ranks.size), batch_size):
        yield own[start : start + batch_size]


def max_over_ranks(value: float, device: torch.device) -> float:
    """Return the maximum of a number over the ranks."""
    return world().max(torch.tensor(value, device=device)).item()


def sum_over_ranks(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return the sum of a vector over the ranks, on CPU."""
    return world().sum(values.to(device, copy=True)).cpu()
