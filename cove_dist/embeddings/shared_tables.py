"""Tables and their sparse optimizer state in memory that all ranks of a host share: every row is updated once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from cove_dist.distributed import barrier, world
from cove_dist.shared_memory import shared_tensor
from cove_dist.torch_compat import whole_parameter

Rows = tuple[torch.Tensor, torch.Tensor]  # distinct sorted row ids of all tables [N]; gradients [N, d]


class SharedTables:
    """The tables of one parameter ``[R * d]``, the same memory on all ranks, with room for the gradients of each rank.

    In a step, every rank writes the sums of its gradients by row, and averages and updates a part of all rows (`part`).
    After `close_step`, all ranks see all updates. Nothing is sent but these two signals. Other writes to the tables,
    such as loading a checkpoint, write the same values on all ranks.

    Args:
        weights: Weights ``[R * d]`` in shared memory.
        sums: Room for the sums of each rank ``[W, R, d]``; pages that are not used take no memory.
        ids: Room for their row ids, int64 ``[W, R + 1]``; the last element of a rank is their number.
    """

    def __init__(self, weights: torch.Tensor, sums: torch.Tensor, ids: torch.Tensor) -> None:
        self._weights, self._sums, self._ids = weights, sums, ids
        self._rank, self._world_size = world().rank, len(sums)

    @classmethod
    def open(cls, whole: torch.Tensor, tables: Iterable[nn.Parameter], dim: int) -> SharedTables | None:
        """Move tables that are equal on all ranks into shared memory; None without such memory. Collective.

        Args:
            whole: Parameter with all tables.
            tables: Its tables ``[rows, d]``.
            dim: d.
        """
        size, rows = world().size, whole.numel() // dim
        weights = shared_tensor(whole.shape, whole.dtype)
        sums = shared_tensor((size, rows, dim), whole.dtype)
        ids = shared_tensor((size, rows + 1), torch.int64)
        if weights is None or sums is None or ids is None:
            return None
        if world().rank == 0:
            weights.copy_(whole.detach())
        barrier()
        whole.data = weights
        for table in tables:
            start = whole_parameter(table)[1]
            table.data = weights[start : start + table.numel()].view_as(table)
        return cls(weights, sums, ids)

    def share_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the initial state of a table, zeros, with its tensors in shared memory, except scalars. Collective."""
        shared = {name: shared_tensor(value.shape, value.dtype) for name, value in state.items() if value.dim()}
        missing = [name for name, value in shared.items() if value is None]
        if missing:
            raise MemoryError(f"{', '.join(missing)}: no shared memory for this optimizer state of a table")
        return {**state, **shared}

    def part(self, ids: torch.Tensor, gradients: torch.Tensor) -> Rows:
        """Return the mean over ranks of the gradients of this rank's part of the rows. Collective.

        Rank 0's distinct rows are cut into parts of equal size, so that ranks have about the same work.

        Args:
            ids: Rows of this rank ``[N]``, which may repeat.
            gradients: Their gradients ``[N, d]``.
        """
        distinct, place = torch.unique(ids, return_inverse=True)
        self._ids[self._rank, : len(distinct)] = distinct
        self._ids[self._rank, -1] = len(distinct)
        self._sums[self._rank, : len(distinct)].zero_().index_add_(0, place, gradients)
        barrier()
        of_ranks = [row[:count] for row, count in zip(self._ids, self._ids[:, -1].tolist(), strict=True)]
        bounds = torch.tensor([self._bound(of_ranks[0], each) for each in (self._rank, self._rank + 1)], device="cpu")
        cuts = [slice(*torch.searchsorted(each, bounds).tolist()) for each in of_ranks]
        rows, place = torch.unique(
            torch.cat([each[cut] for each, cut in zip(of_ranks, cuts, strict=True)]), return_inverse=True
        )
        mean = gradients.new_zeros(len(rows), gradients.shape[1])
        places = place.split([cut.stop - cut.start for cut in cuts])
        for sums, cut, at in zip(self._sums, cuts, places, strict=True):
            mean.index_add_(0, at, sums[cut])
        return rows, mean.div_(self._world_size)

    def _bound(self, first: torch.Tensor, rank: int) -> int:
        """Return the first row of a rank's part, by the rows of rank 0."""
        if rank == 0:
            return 0
        at = len(first) * rank // self._world_size
        return int(first[at]) if at < len(first) else self._sums.shape[1]

    def close_step(self) -> None:
        """Wait for the updates of all ranks. Collective."""
        barrier()
