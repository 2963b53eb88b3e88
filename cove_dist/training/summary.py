"""The summary that rank 0 logs before the first step: machine, data, parameters, and the sharding plan."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from rich.table import Table
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.types import EmbeddingModuleShardingPlan

from cove_dist.config import RunConfig
from cove_dist.console import console
from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.parts import table_weights
from cove_dist.tasks.registry import task_of
from data_pipeline.schema import Schema

logger = logging.getLogger(__name__)

_MB = 1 << 20


def show_start(
    model: DistributedModelParallel,
    context: DistributedContext,
    config: RunConfig,
    schema: Schema,
    steps_per_epoch: int,
) -> None:
    """Log the description of the run and settings that begin to act after it, and print the sharding plan, as an info.

    See `describe_start` and `Task.late_settings`.
    """
    for line in describe_start(model, context, config, schema, steps_per_epoch):
        logger.info(line)
    for warning in task_of(config).late_settings(config, steps_per_epoch):
        logger.warning(warning)
    if logger.isEnabledFor(logging.INFO):
        console.print(sharding_table(model))


def describe_start(
    model: DistributedModelParallel,
    context: DistributedContext,
    config: RunConfig,
    schema: Schema,
    steps_per_epoch: int,
) -> list[str]:
    """Describe the run, one fact per line.

    Args:
        model: Sharded model.
        context: Context of this rank.
        config, schema: Configuration and data of the run.
        steps_per_epoch: Optimizer steps per epoch.
    """
    rows = schema.splits["train"].rows
    tables = sum(count for _, _, count, _ in _shapes(model))
    dense = sum(parameter.numel() for parameter in model.module.objective.parameters())
    single = f"an epoch is one step: all {rows:,} rows are in it; a smaller trainer.batch_size takes more steps"
    return [
        f"device: {context.device}, ranks: {context.world_size}",
        f"training rows: {rows:,}, steps per epoch: {steps_per_epoch:,}",
        f"parameters: {tables:,} in tables ({4 * tables / _MB:,.1f} MB in float32), {dense:,} in the model",
        *([single] if steps_per_epoch == 1 else []),
        *_codebooks_of_warm_start(config),
        *([] if schema.weight is None else [_weights(config, schema)]),
    ]


def _codebooks_of_warm_start(config: RunConfig) -> list[str]:
    """State that codebooks do not start by k-means in a run from another one, if they are set to."""
    run, quantizer = config.warm_start.run, config.quantizer
    if run is None or not quantizer.levels() or quantizer.start != "kmeans":
        return []
    return [f"quantizer.start = kmeans: not in this run: codebooks are those of warm_start.run = {run}"]


def _weights(config: RunConfig, schema: Schema) -> str:
    """State what the sample weights of the data act on."""
    if task_of(config).protocol(config, schema, "validation").weighted:
        return "sample weights: the loss, AUC and metrics that are means over rows are weighted; rankings are not"
    return "sample weights: the loss is weighted; metrics are not"


def sharding_table(model: DistributedModelParallel) -> Table:
    """Tabulate the sharding plan: every table with its shape, bytes, sharding, kernel and ranks."""
    shown = Table("table", "rows", "dim", "MB", "sharding", "kernel", "ranks", title="sharding plan")
    for name, (rows, dim), count, (sharding, kernel, ranks) in _shapes(model):
        shown.add_row(name, f"{rows:,}", str(dim), f"{4 * count / _MB:,.1f}", sharding, kernel, ranks)
    return shown


def _shapes(
    model: DistributedModelParallel,
) -> Iterator[tuple[str, tuple[int, int], int, tuple[str, str, str]]]:
    """Yield every table: its name, (rows, dim), number of weights, and (sharding, kernel, ranks)."""
    weights = table_weights(model.module.tables)
    for plan in model.plan.plan.values():
        assert isinstance(plan, EmbeddingModuleShardingPlan)
        for name, parameter in plan.items():
            rows, dim = weights[name].size()
            ranks = ", ".join(map(str, parameter.ranks or []))
            yield name, (rows, dim), rows * dim, (parameter.sharding_type, parameter.compute_kernel, ranks)
