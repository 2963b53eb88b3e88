"""Look-ups in data-parallel tables on CPU: unpooled ones, and pooled ones of a single rank.

fbgemm's dense kernel (1.6, 1.8) always pools on CPU: its result for a list of ids is their sum, which is correct only
for one id; TorchRec then fails to split it by column.

`DistributedDataParallel` copies gradients into its buckets, divides them and reduces them, by gloo through sockets. For
a table this takes several times as long as the look-up and its backward pass. Gradients of unpooled look-ups are
averaged in memory that the ranks of a host share (`KeptGradient`) or exchanged by row (`SparseOptimizer`); those of a
single rank need no average. On CUDA all gradients are reduced by DDP with nccl, during the backward pass.
"""

from __future__ import annotations

from collections.abc import MutableSequence
from functools import partial
from typing import Any

import torch
from fbgemm_gpu.split_table_batched_embeddings_ops_training import DenseTableBatchedEmbeddingBagsCodegen
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torchrec.distributed.batched_embedding_kernel import BatchedDenseEmbedding
from torchrec.distributed.embedding import ShardedEmbeddingCollection
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.types import LazyNoWait
from torchrec.sparse.jagged_tensor import JaggedTensor, KeyedJaggedTensor

from cove_dist.embeddings.kept_gradient import LookUpWithKeptGradient
from cove_dist.embeddings.sparse_optimizers import LookUpRows
from cove_dist.torch_compat import lookups_of

LookUp = type[LookUpRows]


def look_up_locally(model: nn.Module, *, sparse_gradients: bool, single: bool) -> None:
    """Replace look-ups in data-parallel tables on CPU: unpooled ones by those of a row per id, those of a single rank.

    Args:
        model: Sharded model.
        sparse_gradients: Whether to store gradients by row, for a `SparseOptimizer`, instead of dense ones.
        single: Whether this is the only rank.
    """
    look_up_rows = LookUpRows if sparse_gradients else LookUpWithKeptGradient
    for collection in model.modules():
        if isinstance(collection, ShardedEmbeddingBagCollection) and single:
            _leave_unreduced(lookups_of(collection))
        elif isinstance(collection, ShardedEmbeddingCollection):
            _replace_unpooled(collection, look_up_rows)


def _leave_unreduced(lookups: MutableSequence[nn.Module]) -> None:
    """Remove the wrapper that reduces gradients over ranks."""
    for position, lookup in enumerate(lookups):
        if isinstance(lookup, DistributedDataParallel):
            lookups[position] = lookup.module


def _replace_unpooled(collection: ShardedEmbeddingCollection, look_up_rows: LookUp) -> None:
    lookups = lookups_of(collection)
    modules = (module for lookup in lookups for module in lookup.modules())
    groups = [each for each in modules if isinstance(each, BatchedDenseEmbedding) and each.emb_module.use_cpu]
    for group in groups:
        group.emb_module.forward = partial(_rows, group.emb_module, look_up_rows)
    if groups:  # none on CUDA
        _leave_unreduced(lookups)
    if len(groups) == len(lookups) == 1:
        look_up: Any = DirectLookUp(groups[0], look_up_rows)
        collection.forward = look_up


class DirectLookUp:
    """Look-up in the only group of a collection's tables: nothing to exchange, so none of TorchRec's stages.

    For small batches these take several times as long as the look-up itself.

    Args:
        group: Data-parallel tables of one width.
        look_up_rows: Function of their parameter, the ids and the width.
    """

    def __init__(self, group: BatchedDenseEmbedding, look_up_rows: LookUp) -> None:
        self._look_up_rows = look_up_rows
        self._weights = group.emb_module.weights
        [(_, self._dim), *_] = group.emb_module.embedding_specs
        self._first_rows: dict[str, int] = {}
        rows = 0
        for table in group.config.embedding_tables:
            self._first_rows |= dict.fromkeys(table.feature_names, rows)
            rows += table.num_embeddings

    def __call__(self, features: KeyedJaggedTensor) -> LazyNoWait[dict[str, JaggedTensor]]:
        """Return the rows of the ids by feature, values ``[n, d]``, with the lengths of the ids.

        Features without a table, which a batch may have too, are left out.
        """
        keys = features.keys()
        values = zip(keys, features.values().split(features.length_per_key()), strict=True)
        lengths = dict(zip(keys, features.lengths().view(len(keys), -1), strict=True))
        parts = {key: part + self._first_rows[key] for key, part in values if key in self._first_rows}
        counts = [len(part) for part in parts.values()]
        rows = self._look_up_rows.apply(self._weights, torch.cat(list(parts.values())), self._dim).split(counts)
        found = {key: JaggedTensor(each, lengths=lengths[key]) for key, each in zip(parts, rows, strict=True)}
        return LazyNoWait(found)  # which is waited for like the collection's own result


def _rows(
    tables: DenseTableBatchedEmbeddingBagsCodegen,
    look_up_rows: LookUp,
    indices: torch.Tensor,
    offsets: torch.Tensor,
) -> torch.Tensor:
    """Return the row of every id ``[N, d]``.

    Args:
        tables: T tables in one parameter, all of width d.
        look_up_rows: As in `DirectLookUp`.
        indices: Ids int64 ``[N]``, feature after feature.
        offsets: Offsets int64 ``[features * B + 1]``.
    """
    [(_, dim), *_] = tables.embedding_specs
    first_row = tables.hash_size_cumsum[:-1]  # first row of every feature's table
    ends = offsets[:: (len(offsets) - 1) // len(first_row)]
    ids = indices + first_row.repeat_interleave(ends.diff())
    return look_up_rows.apply(tables.weights, ids, dim)
