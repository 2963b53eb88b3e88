"""Look-ups of ids in sharded tables outside of training, for evaluation, export and recommendation.

Shapes: ``m`` ids of this rank, ``d`` embedding dimension.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from cove_dist.distributed import world
from cove_dist.embeddings.exchange import gather_rows

_LISTS = 1024  # among which ids are divided: on GPUs those of one list are looked up one after another


def look_up(tables: nn.Module, columns: Sequence[str], ids: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Look up the rows of some columns. Collective; ranks may request different ids in different numbers.

    Args:
        tables: A sharded `EmbeddingCollection`.
        columns: All features of the tables, in their order.
        ids: Ids int64 ``[m]`` by column, on the device of the tables; at least one column.

    Returns:
        Rows ``[m, d]`` by column.
    """
    none = next(iter(ids.values()))[:0]
    lists = [ids.get(name, none) for name in columns]
    sizes = torch.tensor([[len(each)] for each in lists], device="cpu")
    ends = torch.arange(_LISTS + 1, device="cpu") * sizes // _LISTS
    lengths = ends.diff(dim=1).flatten().to(none.device)
    looked_up = tables(KeyedJaggedTensor(list(columns), torch.cat(lists), lengths=lengths, stride=_LISTS))
    return {name: looked_up[name].values() for name in ids}


def whole_table(
    tables: nn.Module, columns: Sequence[str], column: str, rows: int, device: torch.device
) -> torch.Tensor:
    """Return the table of a column, ``[rows, d]``, on every rank: each looks up its block, and all are gathered.

    Args:
        tables, columns: As in `look_up`.
        column: Feature whose table is returned.
        rows: Number of rows of this table.
        device: Device of the tables.
    """
    own = torch.arange(*world().block_of(rows), device=device)
    return gather_rows(look_up(tables, columns, {column: own})[column], rows)


def single_ids(columns: Sequence[str], column: str, ids: torch.Tensor, stride: int) -> KeyedJaggedTensor:
    """Build a batch in which each of the first m rows has one id in one column, so that pooling changes nothing.

    Args:
        columns: All features of the tables, in their order.
        column: The column with ids.
        ids: Ids int64 ``[m]``.
        stride: Number of rows of the batch, at least m and equal on all ranks; rows from m on have no ids.
    """
    lengths = torch.zeros(len(columns), stride, dtype=torch.int64, device=ids.device)
    lengths[columns.index(column), : len(ids)] = 1
    return KeyedJaggedTensor(list(columns), ids, lengths=lengths.flatten(), stride=stride)
