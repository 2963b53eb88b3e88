"""Memory shared by the ranks of one host, where they exchange tensors by copies of memory instead of sockets.

The memory is that of an anonymous file of one rank (`os.memfd_create`, Linux), which the other ranks open through its
process. It has no name, so nothing remains of it after the last rank has ended, and the size of /dev/shm does not
limit it. The ranks wait for each other by pipes: in 13 µs, where gloo's barrier takes 1 ms.
"""

from __future__ import annotations

import math
import mmap
import os
import secrets
import select
from collections.abc import Sequence
from contextlib import suppress

import torch

from cove_dist.distributed import timeout, world
from data_pipeline.streaming.partition import row_block

_TOKEN_BYTES = 16
_NUMBER_BYTES = 2  # of a rank, as the others read it; the system writes so few bytes at once


class HostRanks:
    """The ranks of this process group, all on one host. All calls are collective.

    Example::

        if (host := HostRanks.open()) is not None:
            numbers = host.shared((host.size, 10))  # [W, 10], the same memory on all ranks
            numbers[host.rank] = 1
            host.barrier()  # now all numbers are 1, on all ranks

    Attributes:
        rank: Index of this process.
        size: Number of ranks W.
    """

    def __init__(self, arrivals: int, others: Sequence[int]) -> None:
        """Use the reading end of this rank's pipe, and the writing ends of those of the other ranks."""
        self.rank, self.size = world().rank, world().size
        self._arrivals, self._others = arrivals, others
        self._arrived = [0] * self.size  # barriers that each rank has entered
        self._poll = select.poll()
        self._poll.register(arrivals, select.POLLIN)

    @classmethod
    def open(cls) -> HostRanks | None:
        """Connect the ranks; None on every rank if there is only one, or one cannot open the memory of another."""
        ranks = world()
        if ranks.size == 1 or _share(_TOKEN_BYTES) is None:
            return None
        arrivals, own = os.pipe()
        ends = ranks.gather_objects(f"/proc/{os.getpid()}/fd/{own}")
        others: list[int] = []
        with suppress(OSError):
            for end in (end for rank, end in enumerate(ends) if rank != ranks.rank):
                others.append(os.open(end, os.O_WRONLY))
        whole = torch.tensor(len(others) == ranks.size - 1, dtype=torch.int32, device="cpu")
        connected = bool(ranks.min(whole))  # all have opened all ends
        os.close(own)  # so that the pipe ends with the other ranks
        if not connected:
            for file in (arrivals, *others):
                os.close(file)
            return None
        return cls(arrivals, others)

    def __del__(self) -> None:
        for file in (self._arrivals, *self._others):
            os.close(file)

    def shared(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        """Allocate a tensor of zeros on CPU whose memory is the same on all ranks.

        Pages take memory from their first use on.

        Args:
            shape: Shape, the same on all ranks.
            dtype: Type of the elements.

        Raises:
            MemoryError: The memory could not be allocated or opened.
        """
        memory = _share(size := math.prod(shape) * dtype.itemsize)
        if memory is None:
            raise MemoryError(f"{size:,} bytes of memory that {self.size} ranks share could not be allocated")
        return torch.frombuffer(memory, dtype=dtype, count=math.prod(shape)).view(*shape)

    def barrier(self) -> None:
        """Wait until all ranks have arrived; what they wrote to shared memory before can then be read.

        Raises:
            RuntimeError: A rank has ended, or did not arrive within the timeout of the process group.
        """
        self._arrived[self.rank] += 1
        try:
            for end in self._others:
                os.write(end, self.rank.to_bytes(_NUMBER_BYTES, "little"))
        except BrokenPipeError as error:
            raise RuntimeError("a rank of this host has ended") from error
        while min(self._arrived) < self._arrived[self.rank]:
            if not self._poll.poll(timeout().total_seconds() * 1000):
                raise RuntimeError(f"a barrier of the ranks of this host timed out after {timeout()}")
            numbers = os.read(self._arrivals, _NUMBER_BYTES * self.size)
            if not numbers:
                raise RuntimeError("the other ranks of this host have ended")
            for at in range(0, len(numbers), _NUMBER_BYTES):
                self._arrived[int.from_bytes(numbers[at : at + _NUMBER_BYTES], "little")] += 1

    def average(self, parts: torch.Tensor) -> None:
        """Replace every row of a shared tensor ``[W, n]`` by the mean of its W rows; row r was written by rank r.

        A rank computes the mean of a block of the columns and copies the others, so all rows have the same bits.
        """
        blocks = [slice(*row_block(parts.shape[1], each, self.size)) for each in range(self.size)]
        others = [each for each in range(self.size) if each != self.rank]
        own, mean = parts[self.rank], parts[self.rank, blocks[self.rank]]
        self.barrier()  # all rows are written
        for other in others:
            mean.add_(parts[other, blocks[self.rank]])
        mean.div_(self.size)
        self.barrier()  # all blocks are computed
        for other in others:
            own[blocks[other]] = parts[other, blocks[other]]
        self.barrier()  # all blocks are copied: rows may change again


def _share(size: int) -> mmap.mmap | None:
    """Map new memory of ``size`` zero bytes on all ranks; None on every rank if one of them cannot. Collective."""
    ranks = world()
    token = secrets.token_bytes(_TOKEN_BYTES)  # at the end of the file: another file may have the same path elsewhere
    created = _create(size, token) if ranks.rank == 0 else None
    path, token = ranks.gather_objects((f"/proc/{os.getpid()}/fd/{created}", token))[0]
    opened = _open(path, size, token)
    shared = bool(ranks.min(torch.tensor(opened is not None, dtype=torch.int32, device="cpu")))
    if created is not None:
        os.close(created)
    return opened if shared else None


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
