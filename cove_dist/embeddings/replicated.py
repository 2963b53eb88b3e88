"""Unpooled look-up in data-parallel tables on CPU, where fbgemm's dense kernel (1.6, 1.8) always pools.

Its result for a list of ids is their sum, which is correct only for one id; TorchRec then fails to split it by column.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from fbgemm_gpu.split_table_batched_embeddings_ops_training import DenseTableBatchedEmbeddingBagsCodegen
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbedding
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from cove_dist.embeddings.sparse_optimizers import LookUpRows
from cove_dist.torch_compat import lookups_of


def look_up_unpooled(model: nn.Module, sparse_gradients: bool) -> None:
    """Replace the look-up of unpooled data-parallel table groups on CPU by one that returns a row per id.

    Args:
        model: Sharded model.
        sparse_gradients: Whether to store gradients by row, for a `SparseOptimizer`, instead of dense ones for DDP.
    """
    for collection in (module for module in model.modules() if isinstance(module, ShardedEmbeddingCollection)):
        lookups = lookups_of(collection)
        groups = []
        for position, lookup in enumerate(lookups):
            for module in lookup.modules():
                if isinstance(module, BatchedDenseEmbedding) and module.emb_module.use_cpu:
                    module.emb_module.forward = partial(_rows, module.emb_module, sparse_gradients)
                    groups.append(module)
            if sparse_gradients and isinstance(lookup, DistributedDataParallel):
                lookups[position] = lookup.module
        if sparse_gradients and len(groups) == len(lookups) == 1:
            look_up: Any = DirectLookUp(groups[0])
            collection.forward = look_up


class DirectLookUp:
    """Look-up in the only group of a collection's tables: nothing to exchange, so none of TorchRec's stages.

    For small batches these take several times as long as the look-up itself.

    Args:
        group: Data-parallel tables of one width.
    """

    def __init__(self, group: BatchedDenseEmbedding) -> None:
        self._weights = group.emb_module.weights
        [(_, self._dim), *_] = group.emb_module.embedding_specs
        self._first_rows: dict[str, int] = {}
        rows = 0
        for table in group.config.embedding_tables:
            self._first_rows |= dict.fromkeys(table.feature_names, rows)
            rows += table.num_embeddings

    def __call__(self, features: KeyedJaggedTensor) -> dict[str, JaggedTensor]:
        """Return the rows of the ids by feature, values ``[n, d]``, with the lengths of the ids."""
        keys, counts = features.keys(), features.length_per_key()
        ids = torch.cat(
            [part + self._first_rows[key] for key, part in zip(keys, features.values().split(counts), strict=True)]
        )
        rows = LookUpRows.apply(self._weights, ids, self._dim).split(counts)
        lengths = features.lengths().view(len(keys), -1)
        return {key: JaggedTensor(rows[k], lengths=lengths[k]) for k, key in enumerate(keys)}


def _rows(
    tables: DenseTableBatchedEmbeddingBagsCodegen, sparse_gradients: bool, indices: torch.Tensor, offsets: torch.Tensor
) -> torch.Tensor:
    """Return the row of every id ``[N, d]``.

    Args:
        tables: T tables in one parameter, all of width d.
        sparse_gradients: As in `look_up_unpooled`.
        indices: Ids int64 ``[N]``, feature after feature.
        offsets: Offsets int64 ``[features * B + 1]``.
    """
    [(_, dim), *_] = tables.embedding_specs
    first_row = tables.hash_size_cumsum[:-1]  # first row of every feature's table
    ends = offsets[:: (len(offsets) - 1) // len(first_row)]
    ids = indices + first_row.repeat_interleave(ends.diff())
    if sparse_gradients:
        return LookUpRows.apply(tables.weights, ids, dim)
    return F.embedding(ids, tables.weights.view(-1, dim))
