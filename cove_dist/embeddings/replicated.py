"""Unpooled look-up in replicated tables on CPU, where fbgemm 1.8.0's dense kernel pools whatever it is told.

Its result for a list of ids is their sum, right for lists of one id alone; TorchRec then fails to split it by column.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from fbgemm_gpu.split_table_batched_embeddings_ops_training import DenseTableBatchedEmbeddingBagsCodegen
from torch import nn
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbedding
from torchrec.distributed.embedding import ShardedEmbeddingCollection


def look_up_unpooled(model: nn.Module) -> None:
    """Give every unpooled replicated table group of a sharded model on CPU a look-up that keeps the ids apart."""
    collections = (module for module in model.modules() if isinstance(module, ShardedEmbeddingCollection))
    lookups = (lookup for collection in collections for lookup in collection._lookups)  # a list, not submodules
    for module in (module for lookup in lookups for module in lookup.modules()):
        if isinstance(module, BatchedDenseEmbedding) and module.emb_module.use_cpu:
            module.emb_module.forward = partial(_rows, module.emb_module)


def _rows(tables: DenseTableBatchedEmbeddingBagsCodegen, indices: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """The row of every id ``[N, d]``.

    Args:
        tables: T tables in one parameter, all of width d.
        indices: int64 ``[N]``, feature after feature.
        offsets: int64 ``[features * B + 1]``.
    """
    [(_, dim), *_] = tables.embedding_specs
    first_row = tables.hash_size_cumsum[:-1]  # of the table of every feature
    ends = offsets[:: (len(offsets) - 1) // len(first_row)]
    return F.embedding(indices + first_row.repeat_interleave(ends.diff()), tables.weights.view(-1, dim))
