"""Occurrences in training of the ids of tables, and groups of users and items by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext, sum_over_ranks, world
from cove_dist.evaluation import FrequencyGroups
from data_pipeline.rare_ids import TableRows
from data_pipeline.schema import ENTITIES, Schema
from data_pipeline.streaming.loader import build_loader
from data_pipeline.streaming.row_groups import read_footers, read_split

_ROWS = 1 << 17  # per step


def row_counts(folder: Path | str, schema: Schema) -> dict[str, torch.Tensor]:
    """Count the occurrences in training of the id of every table row: int64 ``[rows]`` by table. Collective.

    Each rank reads its share of the training split once.

    Args:
        folder: Folder of the prepared data.
        schema: Schema of the columns to count. The out-of-vocabulary row has occurrences where ids are too rare.
    """
    counts = {column.table_name: np.zeros(column.num_rows, np.int64) for column in schema.categorical}
    rows = {column.table_name: TableRows.load(folder, column) for column in schema.categorical}
    singles = [column.table_name for column in schema.categorical if not column.sequence]
    lists = [column.table_name for column in schema.categorical if column.sequence]
    ranks = world()
    for part in read_split(read_footers(Path(folder), schema, "train"), schema, ranks.rank, ranks.size):
        values = [*zip(singles, part.ids, strict=True), *zip(lists, (ids for ids, _ in part.sequences), strict=True)]
        for table, ids in values:
            np.add.at(counts[table], rows[table](ids), 1)
    return {table: ranks.sum(torch.from_numpy(count)) for table, count in counts.items()}


def frequency_groups(config: RunConfig, schema: Schema, context: DistributedContext) -> dict[str, FrequencyGroups]:
    """Return the frequency groups of users and items, from one pass over the training split. Collective.

    The ranks share the rows as in training. Each holds 8 bytes per id of the split while counting, 1 byte after.
    """
    columns = {role: schema.entity(role) for role in ENTITIES}
    ids_alone = replace(schema, categorical=tuple(columns.values()), dense=())
    counts = {role: torch.zeros(column.num_ids, dtype=torch.int64, device="cpu") for role, column in columns.items()}
    for batch in build_loader(config.data.path, ids_alone, "train", _ROWS, context.rank, context.world_size):
        for role in columns:
            ids = batch.users if role == "user" else batch.items
            counts[role].index_add_(0, ids, torch.ones_like(ids))  # ids that are too rare for a row of their own too
    return {
        role: FrequencyGroups.from_counts(sum_over_ranks(counts.pop(role), context.device), column.num_ids)
        for role, column in columns.items()
    }
