"""Placement of table rows: constraints from the configuration, the planner, and its sharders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torchrec.distributed.embedding import EmbeddingCollectionSharder
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner
from torchrec.distributed.planner.stats import Stats
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError, Topology
from torchrec.distributed.types import CacheParams, ModuleSharder, ShardingPlan, ShardingType
from torchrec.modules.embedding_modules import EmbeddingCollection

from cove_dist.config import EmbeddingsConfig
from cove_dist.config.embeddings import ROWS_WITHIN_HOSTS
from cove_dist.distributed import ProcessGroup
from cove_dist.embeddings.tables import FIRST_ORDER_SUFFIX, base_table
from cove_dist.errors import ConfigError
from cove_dist.torch_compat import topology

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
    if sharding == "grid_shard" and table.endswith(FIRST_ORDER_SUFFIX):
        return "table_row_wise"
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
    lookups: Mapping[str, Sequence[float]] | None = None,
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
        lookups: Ids that a row looks up, by table, feature by feature; None: one.

    Raises:
        ConfigError: No placement satisfies the constraints within memory.
    """
    devices = topology(
        world_size=world_size,
        local_world_size=local_world_size,
        compute_device=device_type,
        hbm_cap=_accelerator_memory(device_type),
    )
    planner = table_planner(model, tables, config, devices, batch_size, lookups)
    try:
        if process_group is None:
            return planner.plan(model, sharders())
        return planner.collective_plan(model, sharders(), process_group)
    except PlannerError as error:
        raise ConfigError(f"embeddings.sharding = {dict(config.sharding)}: no placement fits: {error}") from error


def table_planner(
    model: nn.Module,
    tables: list[str],
    config: EmbeddingsConfig,
    devices: Topology,
    batch_size: int,
    lookups: Mapping[str, Sequence[float]] | None = None,
    stats: Stats | None = None,
) -> EmbeddingShardingPlanner:
    """Build TorchRec's planner with the constraints of the configuration.

    Args:
        model, tables, config, batch_size, lookups: As in `plan_tables`.
        devices: Devices, with their memory and bandwidths.
        stats: Receives the chosen options; None: nothing does.

    Raises:
        ConfigError: A rule is of a table that does not exist, or of a sharding that this model's look-up does not have.
    """
    check_tables(config, tables)
    constraints = {table: _constraints(model, config, table, devices.compute_device, lookups or {}) for table in tables}
    return EmbeddingShardingPlanner(
        topology=devices, batch_size=batch_size, constraints=constraints, stats=stats, debug=False
    )


def _constraints(
    model: nn.Module, config: EmbeddingsConfig, table: str, device_type: str, lookups: Mapping[str, Sequence[float]]
) -> ParameterConstraints:
    sharding = table_sharding(config, table, device_type)
    if sharding in ROWS_WITHIN_HOSTS and any(isinstance(module, EmbeddingCollection) for module in model.modules()):
        raise ConfigError(
            f"embeddings.sharding = {dict(config.sharding)}: TorchRec has {sharding} for look-ups that are summed, of"
            " click-through rate models; for this model allowed: auto, data_parallel, table_wise, row_wise, column_wise"
        )
    types = _AUTO if sharding == "auto" else (ShardingType(sharding),)
    factor, kernel = config.cache_load_factor, EmbeddingComputeKernel.FUSED
    if sharding == "data_parallel":
        factor, kernel = None, EmbeddingComputeKernel.DENSE
    elif factor is not None:
        kernel = EmbeddingComputeKernel.FUSED_UVM_CACHING
    return ParameterConstraints(
        sharding_types=[kind.value for kind in types],
        compute_kernels=[kernel.value],
        min_partition=min(config.dim, 32),
        cache_params=None if factor is None else CacheParams(load_factor=factor),
        pooling_factors=[max(1.0, each) for each in lookups.get(table, (1.0,))],
    )


def _accelerator_memory(device_type: str) -> int | None:
    """Return the bytes of memory of a GPU; None for tables on CPU, or to plan for GPUs on a machine without one."""
    on_gpu = device_type == "cuda" and torch.cuda.is_available()
    return torch.cuda.get_device_properties(0).total_memory if on_gpu else None
