"""Memory shared by the ranks of one host, where they exchange tensors by copies of memory instead of sockets.

The memory is that of an anonymous file (`os.memfd_create`, Linux) of rank 0, which the other ranks open through its
process. It has no name, so nothing remains of it after the last rank has ended, and the size of /dev/shm does not
limit it.
"""

from __future__ import annotations

import math
import mmap
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress

import torch

from cove_dist.distributed import barrier, world
from data_pipeline.streaming.partition import row_block

_TOKEN_BYTES = 16


def shared_tensor(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor | None:
    """Allocate a tensor of zeros on CPU whose memory is the same on all ranks. Collective.

    Pages are allocated at their first use.

    Args:
        shape: Shape, the same on all ranks.
        dtype: Type of the elements.

    Returns:
        The tensor; None on every rank if one of them cannot open the memory, for example on another host.
    """
    ranks, size = world(), math.prod(shape) * dtype.itemsize
    token = secrets.token_bytes(_TOKEN_BYTES)  # at the end of the file: another file may have the same path elsewhere
    created = _create(size, token) if ranks.rank == 0 else None
    path, token = ranks.gather_objects((f"/proc/{os.getpid()}/fd/{created}", token))[0]
    opened = _open(path, size, token)
    shared = bool(ranks.min(torch.tensor(opened is not None, dtype=torch.int32, device="cpu")))
    if created is not None:
        os.close(created)
    if opened is None or not shared:
        return None
    return torch.frombuffer(opened, dtype=dtype, count=math.prod(shape)).view(*shape)


def average_shared(parts: torch.Tensor, rank: int) -> None:
    """Replace every row of a shared tensor ``[W, n]`` by the mean of its W rows. Collective.

    A rank computes the mean of a block of the columns and copies the others, so all rows have the same bits.

    Args:
        parts: The tensor; row r was written by rank r.
        rank: This rank.
    """
    blocks = [slice(*row_block(parts.shape[1], each, len(parts))) for each in range(len(parts))]
    own, mean = parts[rank], parts[rank, blocks[rank]]
    others = [each for each in range(len(parts)) if each != rank]
    barrier()  # all rows are written
    for other in others:
        mean.add_(parts[other, blocks[rank]])
    mean.div_(len(parts))
    barrier()  # all blocks are computed
    for other in others:
        own[blocks[other]] = parts[other, blocks[other]]
    barrier()  # all blocks are copied: rows may change again


def _create(size: int, token: bytes) -> int | None:
    """Return a descriptor of a file of ``size`` bytes of zeros, followed by the token; None if the system has none."""
    with suppress(AttributeError, OSError):
        file = os.memfd_create("cove_dist")
        os.ftruncate(file, size)
        os.pwrite(file, token, size)
        return file
    return None


def _open(path: str, size: int, token: bytes) -> mmap.mmap | None:
    """Map the file of another rank; None if this process cannot open it, or it is another file."""
    with suppress(OSError, ValueError):
        file = os.open(path, os.O_RDWR)
        try:
            return mmap.mmap(file, size) if os.pread(file, _TOKEN_BYTES, size) == token else None
        finally:
            os.close(file)
    return None
