"""Placement of table rows: constraints from the configuration, the planner, and its sharders."""

from __future__ import annotations

import logging

import torch
from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError
from torchrec.distributed.types import ModuleSharder, ShardingPlan, ShardingType

from cove_dist.config import EmbeddingsConfig
from cove_dist.distributed import ProcessGroup
from cove_dist.embeddings.tables import FIRST_ORDER_SUFFIX, base_table
from cove_dist.errors import ConfigError
from cove_dist.torch_compat import topology

logger = logging.getLogger(__name__)

_AUTO = (ShardingType.TABLE_WISE, ShardingType.ROW_WISE, ShardingType.COLUMN_WISE)


class BagSharder(EmbeddingBagCollectionSharder):
    """Adds row-wise sharding on CPU, where it works although TorchRec does not list it."""

    def sharding_types(self, compute_device_type: str) -> list[str]:
        offered = super().sharding_types(compute_device_type)
        return [*offered, *({ShardingType.ROW_WISE.value} - set(offered))]


def sharders() -> list[ModuleSharder[nn.Module]]:
    return [BagSharder(), EmbeddingCollectionSharder()]


def table_sharding(config: EmbeddingsConfig, table: str, device_type: str) -> str:
    """Return the sharding of a table; ``auto`` is ``data_parallel`` if the optimizer has no fused kernel."""
    sharding = config.sharding.get(base_table(table), config.sharding["default"])
    if sharding == "auto" and not config.optimizer.is_fused_on(device_type):
        return "data_parallel"
    if sharding == "column_wise" and table.endswith(FIRST_ORDER_SUFFIX):
        return "table_wise"  # a single column cannot be split
    return sharding


def check_tables(config: EmbeddingsConfig, tables: list[str]) -> None:
    """Check that tables with sharding rules exist.

    Raises:
        ConfigError: A table does not exist; names the key and the existing tables.
    """
    known = {"default", *(base_table(table) for table in tables)}
    for table in config.sharding:
        if table not in known:
            raise ConfigError(f"embeddings.sharding.{table}: no such table; allowed: {', '.join(sorted(known))}")


def plan_tables(
    model: nn.Module,
    tables: list[str],
    config: EmbeddingsConfig,
    *,
    device_type: str,
    world_size: int,
    local_world_size: int,
    batch_size: int,
    process_group: ProcessGroup | None = None,
) -> ShardingPlan:
    """Plan the placement of every table.

    Args:
        model: Model with the embedding collections, on the meta device.
        tables: Names of all tables.
        config: Sharding constraints.
        device_type: ``cpu`` or ``cuda``.
        world_size, local_world_size: Number of ranks in total and on this host.
        batch_size: Rows per rank.
        process_group: Process group for which rank 0 plans; None: plan only in this process.

    Raises:
        ConfigError: No placement satisfies the constraints within memory.
    """
    check_tables(config, tables)
    constraints = {}
    for table in tables:
        sharding = table_sharding(config, table, device_type)
        types = _AUTO if sharding == "auto" else (ShardingType(sharding),)
        kernel = EmbeddingComputeKernel.DENSE if sharding == "data_parallel" else EmbeddingComputeKernel.FUSED
        constraints[table] = ParameterConstraints(
            sharding_types=[kind.value for kind in types],
            compute_kernels=[kernel.value],
            min_partition=min(config.dim, 32),
        )
    planner = EmbeddingShardingPlanner(
        topology=topology(
            world_size=world_size,
            local_world_size=local_world_size,
            compute_device=device_type,
            hbm_cap=_accelerator_memory(device_type),
        ),
        batch_size=batch_size,
        constraints=constraints,
        debug=False,
    )
    try:
        if process_group is None:
            return planner.plan(model, sharders())
        return planner.collective_plan(model, sharders(), process_group)
    except PlannerError as error:
        raise ConfigError(f"embeddings.sharding = {dict(config.sharding)}: no placement fits: {error}") from error


def _accelerator_memory(device_type: str) -> int | None:
    """Return the bytes of memory of a GPU; None for tables on CPU, or to plan for GPUs on a machine without one."""
    on_gpu = device_type == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_properties(0).total_memory if on_gpu else None
