"""Unpooled look-up in replicated tables on CPU, where fbgemm's dense kernel (1.6, 1.8) pools whatever it is told.

Its result for a list of ids is their sum, right for lists of one id alone; TorchRec then fails to split it by column.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from fbgemm_gpu.split_table_batched_embeddings_ops_training import DenseTableBatchedEmbeddingBagsCodegen
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbedding
from torchrec.distributed.embedding import ShardedEmbeddingCollection

from cove_dist.embeddings.sparse_optimizers import LookUpRows
from cove_dist.torch_compat import lookups_of


def look_up_unpooled(model: nn.Module, sparse_gradients: bool) -> None:
    """Give every unpooled replicated table group of a sharded model on CPU a look-up that keeps the ids apart.

    Args:
        model: sharded.
        sparse_gradients: keep gradients by row, for a `SparseOptimizer`, in place of those that DDP reduces.
    """
    for collection in (module for module in model.modules() if isinstance(module, ShardedEmbeddingCollection)):
        lookups = lookups_of(collection)
        for position, lookup in enumerate(lookups):
            for module in lookup.modules():
                if isinstance(module, BatchedDenseEmbedding) and module.emb_module.use_cpu:
                    module.emb_module.forward = partial(_rows, module.emb_module, sparse_gradients)
            if sparse_gradients and isinstance(lookup, DistributedDataParallel):
                lookups[position] = lookup.module


def _rows(
    tables: DenseTableBatchedEmbeddingBagsCodegen, sparse_gradients: bool, indices: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """The row of every id ``[N, d]``.

    Args:
        tables: T tables in one parameter, all of width d.
        sparse_gradients: see `look_up_unpooled`.
        indices: int64 ``[N]``, feature after feature.
        offsets: int64 ``[features * B + 1]``.
    """
    [(_, dim), *_] = tables.embedding_specs
    first_row = tables.hash_size_cumsum[:-1]  # of the table of every feature
    ends = offsets[:: (len(offsets) - 1) // len(first_row)]
    ids = indices + first_row.repeat_interleave(ends.diff())
    if sparse_gradients:
        return LookUpRows.apply(tables.weights, ids, dim)
    return F.embedding(ids, tables.weights.view(-1, dim))
