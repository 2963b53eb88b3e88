"""The parts of tables, and of their optimizer state, that this rank holds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from cove_dist.torch_compat import ShardedTensor


class Part(NamedTuple):
    """A part of a tensor on this rank.

    Attributes:
        values: ``[rows, columns]`` or ``[rows]``; changes reach the table.
        row, column: Offset in the whole tensor.
    """

    values: torch.Tensor
    row: int
    column: int


def local_parts(whole: torch.Tensor | ShardedTensor) -> list[Part]:
    """Return the parts of a tensor on this rank: all of it if it is data-parallel, none if it is elsewhere."""
    if isinstance(whole, ShardedTensor):
        shards = [(shard.tensor, (*shard.metadata.shard_offsets, 0)) for shard in whole.local_shards()]
        return [Part(values, offsets[0], offsets[1]) for values, offsets in shards]
    return [Part(whole, 0, 0)]


def table_weights(tables: nn.Module) -> dict[str, torch.Tensor | ShardedTensor]:
    """Return the weights of every table of a collection, sharded or not, by the table's name."""
    return {key.split(".")[-2]: weight for key, weight in tables.state_dict().items()}


@torch.no_grad()
def write_rows(table: torch.Tensor | ShardedTensor, ids: torch.Tensor, rows: torch.Tensor) -> None:
    """Set those of the rows ``ids [n]`` of a table that this rank holds to ``rows [n, d]``."""
    for part in local_parts(table):
        mine = (part.row <= ids) & (ids < part.row + len(part.values))
        columns = slice(part.column, part.column + part.values.shape[1])
        part.values[ids[mine] - part.row] = rows[mine, columns].to(part.values.dtype)
