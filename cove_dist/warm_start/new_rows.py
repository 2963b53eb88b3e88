"""The start of rows of ids that the run to start from did not see.

- ``random``: as in any run, hashed from (seed, table, row);
- ``zero``;
- ``mean``: what the task makes of the trained neighbors of an id (`Task.build_new_rows`); the mean of the table's
  trained rows where the task knows no neighbors, or an id has none;
- ``code`` and ``fold_in``: what the task makes of the neighbors; as ``mean`` otherwise.
"""

from __future__ import annotations

import numpy as np
import torch

from cove_dist.config import RunConfig
from cove_dist.distributed import DistributedContext, world
from cove_dist.embeddings.parts import local_parts, table_weights, write_rows
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.new_rows import NewRows
from cove_dist.torch_compat import ShardedTensor
from cove_dist.warm_start.matching import Matching
from data_pipeline.schema import ENTITIES, Schema


@torch.no_grad()
def start_new_rows(
    model: TaskModel, config: RunConfig, schema: Schema, matching: Matching, context: DistributedContext,
    of_task: NewRows | None,
) -> None:  # fmt: skip
    """Set the rows of new ids as ``warm_start.new_rows`` says. Collective.

    Args:
        model: Sharded model, with the rows that were matched.
        config, schema: Configuration and data of the run.
        matching: Former rows of the tables.
        context: Context of this rank.
        of_task: What the task knows of new ids; None: nothing.
    """
    start = config.warm_start.new_rows
    if start == "random":
        return
    weights = table_weights(model.tables)
    for table, weight in weights.items():
        _fill(weight, table, matching, context, zero=start == "zero")
    if start == "zero" or of_task is None:
        return
    for entity in ENTITIES:
        table = schema.entity(entity).table_name
        for ids, rows in of_task.rows(entity, matching.new_rows(table)):
            everyone = torch.from_numpy(ids).to(context.device)
            longest = world().longest(everyone)
            ids_of_all = world().gather_padded(everyone, -1, longest)
            rows_of_all = world().gather_padded(rows, 0.0, longest)
            write_rows(weights[table], ids_of_all[ids_of_all >= 0], rows_of_all[ids_of_all >= 0])


def _fill(
    weight: torch.Tensor | ShardedTensor, table: str, matching: Matching, context: DistributedContext, *, zero: bool
) -> None:
    """Set the new rows of a table to zero, or to the mean of the matched ones. Collective."""
    parts = local_parts(weight)
    former = [matching.former_rows(table, part.row, part.row + len(part.values)) for part in parts]
    mean = torch.zeros(weight.size()[1], dtype=torch.float64, device=context.device)
    if not zero:
        mean = _mean(weight, former, matching.num_rows(table) - 1, context)
    for part, found in zip(parts, former, strict=True):
        new = torch.from_numpy(found < 0).to(part.values.device)
        columns = slice(part.column, part.column + part.values.shape[1])
        part.values[new] = mean[columns].to(part.values.device, part.values.dtype)


def _mean(
    weight: torch.Tensor | ShardedTensor, former: list[np.ndarray], ids: int, context: DistributedContext
) -> torch.Tensor:
    """Return the mean of the matched rows but the out-of-vocabulary row, float64 ``[d]``; zeros without any."""
    total = torch.zeros(2, weight.size()[1], dtype=torch.float64, device=context.device)  # sums, and counts by column
    for part, found in zip(local_parts(weight), former, strict=True):
        known = torch.from_numpy((found >= 0) & (np.arange(len(found)) + part.row < ids)).to(part.values.device)
        columns = slice(part.column, part.column + part.values.shape[1])
        for chunk, mask in zip(part.values.split(1 << 16), known.split(1 << 16), strict=True):
            total[0, columns] += chunk[mask].double().sum(dim=0)
        total[1, columns] += known.sum()
    if isinstance(weight, ShardedTensor):
        world().sum(total)
    return total[0] / total[1].clamp(min=1)
