"""Tables and their sparse optimizer state in memory that all ranks of a host share: every row is updated once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from cove_dist.embeddings.rows import Rows, distinct_rows
from cove_dist.shared_memory import HostRanks
from cove_dist.torch_compat import whole_parameter


class SharedTables:
    """The tables of one parameter ``[R * d]``, the same memory on all ranks, with room for the gradients of each rank.

    In a step, every rank writes the sums of its gradients by row, and averages and updates a part of all rows (`part`).
    After `close_step`, all ranks see all updates. Nothing is sent but these two signals. Other writes to the tables,
    such as loading a checkpoint, write the same values on all ranks.

    Args:
        host: The ranks.
        sums: Room for the sums of each rank ``[W, R, d]``; pages that are not used take no memory.
        ids: Room for their row ids, int64 ``[W, R + 1]``; the last element of a rank is their number.
    """

    def __init__(self, host: HostRanks, sums: torch.Tensor, ids: torch.Tensor) -> None:
        self._host, self._sums, self._ids = host, sums, ids

    @classmethod
    def open(cls, whole: torch.Tensor, tables: Iterable[nn.Parameter], dim: int) -> SharedTables | None:
        """Move tables that are equal on all ranks into shared memory; None without it, or for one rank. Collective.

        Args:
            whole: Parameter with all tables.
            tables: Its tables ``[rows, d]``.
            dim: Width d of the tables.
        """
        if (host := HostRanks.open()) is None:
            return None
        rows, weights = whole.numel() // dim, host.shared(whole.shape, whole.dtype)
        if host.rank == 0:
            weights.copy_(whole.detach())
        host.barrier()
        whole.data = weights
        for table in tables:
            start = whole_parameter(table)[1]
            table.data = weights[start : start + table.numel()].view_as(table)
        sums, ids = host.shared((host.size, rows, dim), whole.dtype), host.shared((host.size, rows + 1), torch.int64)
        return cls(host, sums, ids)

    def share_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the initial state of a table, zeros, with its tensors in shared memory, except scalars. Collective."""
        return {key: self._host.shared(each.shape, each.dtype) if each.dim() else each for key, each in state.items()}

    def part(self, ids: torch.Tensor, gradients: torch.Tensor) -> Rows:
        """Return the mean over ranks of the gradients of this rank's part of the rows. Collective.

        Rank 0's distinct rows are cut into parts of equal size, so that ranks have about the same work.

        Args:
            ids: Rows of this rank ``[N]``, which may repeat.
            gradients: Their gradients ``[N, d]``.
        """
        whole = self._sums.shape[1]
        distinct, place = distinct_rows(ids, whole)
        self._ids[self._host.rank, : len(distinct)] = distinct
        self._ids[self._host.rank, -1] = len(distinct)
        self._sums[self._host.rank, : len(distinct)].zero_().index_add_(0, place, gradients)
        self._host.barrier()
        of_ranks = [row[:count] for row, count in zip(self._ids, self._ids[:, -1].tolist(), strict=True)]
        ends = (self._bound(of_ranks[0], rank) for rank in (self._host.rank, self._host.rank + 1))
        bounds = torch.tensor([*ends], device="cpu")
        cuts = [slice(*torch.searchsorted(each, bounds).tolist()) for each in of_ranks]
        own = torch.cat([each[cut] for each, cut in zip(of_ranks, cuts, strict=True)])
        rows, place = distinct_rows(own, whole)
        mean = gradients.new_zeros(len(rows), gradients.shape[1])
        places = place.split([cut.stop - cut.start for cut in cuts])
        for sums, cut, at in zip(self._sums, cuts, places, strict=True):
            mean.index_add_(0, at, sums[cut])
        return rows, mean.div_(self._host.size)

    def _bound(self, first: torch.Tensor, rank: int) -> int:
        """Return the first row of a rank's part, by the rows of rank 0."""
        if rank == 0:
            return 0
        at = len(first) * rank // self._host.size
        return int(first[at]) if at < len(first) else self._sums.shape[1]

    def close_step(self) -> None:
        """Wait for the updates of all ranks. Collective."""
        self._host.barrier()
