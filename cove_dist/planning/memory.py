"""Bytes per rank of a planned run, from the shapes of its shards.

Tables, optimizer state and gradients are exact; buffers of look-ups are their largest sizes in a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from torch import nn

from cove_dist.config import EmbeddingsConfig, OptimizerConfig
from cove_dist.planning.placement import PlacedTable

FLOAT, ID = 4, 8
_ELEMENTS = {"adam": 2, "sparse_adam": 2, "adagrad": 1, "sparse_rmsprop": 1, "sgd": 0, "rowwise_adagrad": 0}
_PER_ROW = {"rowwise_adagrad": 4, "sparse_rmsprop": 4}  # bytes
_CACHE_PER_ROW, _CACHE_PER_SLOT = 4, 16  # fbgemm: table index of a row; id and age of a cached row


@dataclass
class RankBytes:
    """Bytes of a rank.

    Attributes:
        weights: Shards of tables, or their caches in GPU memory.
        optimizer_state: State of the tables' optimizer.
        gradients: Gradients of data-parallel tables; those of sharded tables are applied in the backward pass.
        buckets: The same once more: after the first step DDP copies them to other buckets.
        lookups: Ids and looked-up rows, with their gradients, before and after they are exchanged.
        dense: Parameters after the look-up, with their gradients and optimizer state, and buffers.
        activations: What the part after the look-up keeps for the backward pass.
        host: Tables and optimizer state in host memory, whose rows are cached in GPU memory.
        checkpoint: The copy of all parameters and optimizer state that a save makes in host memory, and keeps until it
            is written. Training goes on, so it is there in addition to the others.
    """

    weights: int = 0
    optimizer_state: int = 0
    gradients: int = 0
    buckets: int = 0
    lookups: int = 0
    dense: int = 0
    activations: int = 0
    host: int = 0
    checkpoint: int = 0

    @property
    def device(self) -> int:
        """Bytes in the memory of the device during a step: all but those of `host` and `checkpoint`."""
        return sum(getattr(self, kind) for kind in _KINDS)


_KINDS = [field.name for field in fields(RankBytes) if field.name not in ("host", "checkpoint")]


def table_state(config: EmbeddingsConfig, rows: int, columns: int, *, sharded: bool) -> int:
    """Return the bytes of the optimizer state of a shard."""
    optimizer = config.optimizer
    state = rows * columns * FLOAT * _ELEMENTS[optimizer.name] + rows * _PER_ROW.get(optimizer.name, 0)
    if sharded or not optimizer.weight_decay:
        return state
    state += rows * 8 * (optimizer.weight_decay_rows == "looked_up")
    return state + rows * FLOAT * (optimizer.weight_decay_frequency_power > 0)


def add_tables(ranks: list[RankBytes], table: PlacedTable, config: EmbeddingsConfig, device: str) -> None:
    """Add weights, optimizer state and gradients of a table to the bytes of the ranks that hold its shards."""
    factor = config.cache_load_factor if table.is_sharded else None
    sparse = config.optimizer.is_sparse and device == "cpu"  # gradients of the rows of a step only
    for shard in table.shards:
        weights = shard.rows * shard.columns * FLOAT
        state = table_state(config, shard.rows, shard.columns, sharded=table.is_sharded)
        rank = ranks[shard.rank]
        rank.checkpoint += weights + state
        if factor is None:
            rank.weights += weights
            rank.optimizer_state += state
        else:
            rank.host += weights + state
            rank.weights += int(weights * factor + shard.rows * (_CACHE_PER_ROW + _CACHE_PER_SLOT * factor))
        gradients = 0 if table.is_sharded or sparse else weights
        rank.gradients += gradients
        rank.buckets += gradients


def add_lookups(
    ranks: list[RankBytes], table: PlacedTable, lookups: list[float], rows: int, ranks_per_host: int
) -> None:
    """Add the buffers of a table's look-ups: ids, and rows with their gradients.

    Args:
        ranks: Bytes by rank.
        table: The table.
        lookups: Ids per row, feature by feature.
        rows: Rows of a rank's batch.
        ranks_per_host: Number of ranks on a host.
    """
    ids = sum(lookups) * rows
    vectors = len(lookups) * rows if table.pooled else ids
    for rank in ranks:
        rank.lookups += int(ids * ID + 2 * vectors * table.dim * FLOAT)
    if not table.is_sharded:
        return
    world_size = len(ranks)
    for shard in table.shards:
        if shard.rows == 0:
            continue
        share = row_share(table, world_size, ranks_per_host)
        looked_up = ids * world_size * share
        made = vectors * world_size if table.pooled else looked_up  # partial sums are of all rows of all ranks
        ranks[shard.rank].lookups += int(looked_up * ID + 2 * made * shard.columns * FLOAT)


def row_share(table: PlacedTable, world_size: int, ranks_per_host: int) -> float:
    """Return the share of a table's look-ups that a shard serves, if ids are spread evenly."""
    parts = {"row_wise": world_size, "table_row_wise": ranks_per_host, "grid_shard": ranks_per_host}
    return 1 / parts.get(table.sharding, 1)


def dense_bytes(module: nn.Module, optimizer: OptimizerConfig) -> int:
    """Return the bytes of a data-parallel module: parameters, gradients, optimizer state and buffers."""
    trained = sum(each.numel() * each.element_size() for each in module.parameters() if each.requires_grad)
    fixed = sum(each.numel() * each.element_size() for each in module.parameters() if not each.requires_grad)
    buffers = sum(each.numel() * each.element_size() for each in module.buffers())
    return trained * (2 + _ELEMENTS[optimizer.name]) + fixed + buffers


def gradient_bytes(module: nn.Module) -> int:
    """Return the bytes of the gradients of a module, which ranks reduce in every step."""
    return sum(each.numel() * each.element_size() for each in module.parameters() if each.requires_grad)


def totals(ranks: list[RankBytes]) -> Mapping[str, int]:
    """Return the bytes of the fullest rank, by kind, and those of the emptiest in all; the most in host memory."""
    fullest = max(ranks, key=lambda rank: rank.device)
    kinds = {kind: getattr(fullest, kind) for kind in _KINDS}
    in_host = {kind: max(getattr(rank, kind) for rank in ranks) for kind in ("host", "checkpoint")}
    return kinds | {"total": fullest.device, "emptiest": min(rank.device for rank in ranks)} | in_host
