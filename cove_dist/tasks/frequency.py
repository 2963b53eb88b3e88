"""Groups of users and items by their frequency in training."""

from __future__ import annotations

from dataclasses import replace

import torch

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext, sum_over_ranks
from cove_dist.evaluation import FrequencyGroups
from data_pipeline.schema import ENTITIES, Schema
from data_pipeline.streaming.loader import build_loader

_ROWS = 1 << 17  # per step


def frequency_groups(config: RunConfig, schema: Schema, context: DistributedContext) -> dict[str, FrequencyGroups]:
    """Return the frequency groups of users and items, from one pass over the training split. Collective.

    The ranks share the rows as in training. Each holds 8 bytes per id of the split while counting, 1 byte after.
    """
    columns = {role: schema.entity(role) for role in ENTITIES}
    ids_alone = replace(schema, categorical=tuple(columns.values()), dense=())
    counts = {role: torch.zeros(column.num_rows, dtype=torch.int64, device="cpu") for role, column in columns.items()}
    for batch in build_loader(config.data.path, ids_alone, "train", _ROWS, context.rank, context.world_size):
        for role, column in columns.items():
            ids = batch.users if role == "user" else batch.items
            rows = ids.clamp(max=column.num_seen)  # as in a look-up
            counts[role].index_add_(0, rows, torch.ones_like(rows))
    return {
        role: FrequencyGroups.from_counts(sum_over_ranks(counts[role], context.device)[:-1], column.num_ids)
        for role, column in columns.items()
    }
