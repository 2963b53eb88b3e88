"""Unpooled look-ups in replicated tables on CPU.

fbgemm's dense kernel (1.8.0) gives one row a list there, the sum of the list's rows, although asked for every row.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbedding
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor


def mend_dense_lookups(tables: nn.Module) -> None:
    """Let every such look-up of a sharded collection go through torch's own embedding."""
    if not isinstance(tables, ShardedEmbeddingCollection):
        return
    for kernel in (module for lookup in tables._lookups for module in lookup.modules()):
        if isinstance(kernel, BatchedDenseEmbedding) and kernel.emb_module.weights.device.type == "cpu":
            kernel.forward = partial(look_up_rows, kernel)


def look_up_rows(kernel: BatchedDenseEmbedding, features: KeyedJaggedTensor) -> torch.Tensor:
    """The row of every id: ``[n, d]``. Features stand table by table, and so do the tables in the flat weights."""
    tables = kernel.config.embedding_tables
    per_feature = iter(features.length_per_key())
    counts = [sum(next(per_feature) for _ in range(table.num_features())) for table in tables]
    weights = kernel.emb_module.weights.split([table.local_rows * table.local_cols for table in tables])
    rows = [
        F.embedding(ids.long(), flat.view(table.local_rows, table.local_cols))
        for ids, flat, table in zip(features.values().split(counts), weights, tables, strict=True)
    ]
    return torch.cat(rows)
