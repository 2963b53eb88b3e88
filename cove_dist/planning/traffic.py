"""Bytes that a rank sends in a training step, from the placement of the tables."""

from __future__ import annotations

from typing import NamedTuple

from cove_dist.planning.memory import FLOAT, ID, row_share
from cove_dist.planning.placement import PlacedTable


class Traffic(NamedTuple):
    """Bytes that one rank sends to other ranks in a step.

    Attributes:
        all_to_all: Ids and lengths to the ranks of the shards, and looked-up rows and their gradients; of row-wise
            look-ups that are summed this is a reduce-scatter and an all-gather. Of the rank that sends most.
        mean_all_to_all: The same, as mean over ranks.
        all_reduce: Gradients of data-parallel parameters, by a ring: ``2 (W - 1) / W`` of their bytes.
    """

    all_to_all: int
    mean_all_to_all: int
    all_reduce: int


def step_traffic(
    tables: list[PlacedTable],
    lookups: dict[str, list[float]],
    rows: int,
    world_size: int,
    ranks_per_host: int,
    replicated: int,
) -> Traffic:
    """Compute the bytes that ranks send in a step.

    Args:
        tables: Placed tables.
        lookups: Ids per row, by table, feature by feature.
        rows: Rows of a rank's batch.
        world_size, ranks_per_host: Number of ranks in all and on a host.
        replicated: Bytes of gradients that ranks reduce.
    """
    sent = [0.0] * world_size
    others = (world_size - 1) / world_size
    for table in (table for table in tables if table.is_sharded):
        ids, features = sum(lookups[table.name]) * rows, len(lookups[table.name])
        vectors = features * rows if table.pooled else ids
        shards = [shard for shard in table.shards if shard.rows]
        share = row_share(table, world_size, ranks_per_host)
        # An id goes to one of the shards that divide rows, and to every one of those that divide columns.
        requests = len(shards) * (share * ids + features * rows) * ID
        summed = table.pooled and share < 1  # partial sums of all rows are reduced, and gradients go to every part
        gathered = table.pooled and table.sharding == "row_wise"  # gradients are counted with the shards below
        gradients = 0.0 if gathered else vectors * table.dim * FLOAT
        for rank in range(world_size):
            sent[rank] += (requests + gradients) * others
        for shard in shards:
            served = vectors * world_size * (1.0 if table.pooled else share) * shard.columns * FLOAT
            sent[shard.rank] += served * others + (served * (1 - share) if summed else 0.0)
    return Traffic(int(max(sent)), int(sum(sent) / world_size), int(2 * others * replicated))
