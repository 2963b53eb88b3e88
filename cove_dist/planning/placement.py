"""Where TorchRec's planner puts the tables, on devices that are described and need not be there."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import nn
from torchrec.distributed.planner.constants import DP_ELEMENTWISE_KERNELS_PERF_FACTOR
from torchrec.distributed.planner.stats import Stats
from torchrec.distributed.planner.types import PlannerError, ShardingOption, Topology
from torchrec.distributed.planner.types import Shard as PlannedShard
from torchrec.distributed.types import ShardingPlan

from cove_dist.config import EmbeddingsConfig
from cove_dist.embeddings.sharding import sharders, table_planner
from cove_dist.planning.request import PlanConfig
from cove_dist.torch_compat import topology

GB = 1 << 30


class Shard(NamedTuple):
    """A part of a table on a rank."""

    rank: int
    rows: int
    columns: int


class PlacedTable(NamedTuple):
    """A table of a plan.

    Attributes:
        name: Name of the table.
        rows, dim: Its shape.
        sharding, kernel: TorchRec's names of its sharding and compute kernel.
        shards: Parts by rank; of a data-parallel table the whole table on every rank.
        pooled: Whether the look-ups of a feature are summed.
        milliseconds: TorchRec's estimate of look-up, update and exchange in a step, by rank.
    """

    name: str
    rows: int
    dim: int
    sharding: str
    kernel: str
    shards: tuple[Shard, ...]
    pooled: bool
    milliseconds: dict[int, float]

    @property
    def is_sharded(self) -> bool:
        return self.sharding != "data_parallel"


def described_devices(plan: PlanConfig) -> Topology:
    """Describe the devices of a request to TorchRec's planner, which counts bytes and milliseconds."""
    per_ms = GB / 1000
    return topology(
        world_size=plan.world_size,
        local_world_size=plan.ranks_per_host,
        compute_device=plan.device,
        hbm_cap=int(plan.hbm_gb * GB),
        ddr_cap=int(plan.host_gb * GB / plan.ranks_per_host),
        hbm_mem_bw=plan.hbm_gb_per_second * per_ms,
        ddr_mem_bw=plan.host_gb_per_second * per_ms,
        hbm_to_ddr_mem_bw=plan.hbm_to_host_gb_per_second * per_ms,
        intra_host_bw=plan.intra_host_gb_per_second * per_ms,
        inter_host_bw=plan.inter_host_gb_per_second * per_ms,
    )


def place_tables(
    model: nn.Module, config: EmbeddingsConfig, plan: PlanConfig, rows: int, lookups: dict[str, list[float]]
) -> list[PlacedTable] | None:
    """Place the tables of a model; None if TorchRec's planner finds no placement within memory.

    Args:
        model: Model with tables on the meta device, whose optimizer is marked.
        config, plan: Settings of the tables and of the devices.
        rows: Rows of a rank's batch.
        lookups: Ids per row, by table, feature by feature.
    """
    chosen = _Chosen()
    planner = table_planner(model, list(lookups), config, described_devices(plan), rows, lookups, chosen)
    try:
        planner.plan(model, sharders())
    except PlannerError:
        return None
    return [_placed(option, plan) for option in chosen.options]


class _Chosen(Stats):
    """Keeps the options that the planner chose."""

    def __init__(self) -> None:
        self.options: list[ShardingOption] = []

    def log(self, sharding_plan: ShardingPlan, *args: Any, best_plan: list[ShardingOption], **kwargs: Any) -> None:
        self.options = best_plan


def _placed(option: ShardingOption, plan: PlanConfig) -> PlacedTable:
    (rows, dim), world_size = option.tensor.shape, plan.world_size
    ranks = [range(world_size) if shard.rank is None else [shard.rank] for shard in option.shards]
    shards = [Shard(r, *shard.size) for shard, each in zip(option.shards, ranks, strict=True) for r in each]
    if option.sharding_type == "data_parallel":
        shards = [Shard(rank, rows, dim) for rank in range(world_size)]
    milliseconds: dict[int, float] = dict.fromkeys(range(world_size), 0.0)
    for shard, each in zip(option.shards, ranks, strict=True):
        for rank in each:
            milliseconds[rank] += _milliseconds(option, shard, plan)
    return PlacedTable(
        option.name,
        rows,
        dim,
        option.sharding_type,
        option.compute_kernel,
        tuple(shards),
        option.is_pooled,
        milliseconds,
    )


def _milliseconds(option: ShardingOption, shard: PlannedShard, plan: PlanConfig) -> float:
    """Return TorchRec's estimate for a shard; of data-parallel tables without the all-reduce, but with the update.

    TorchRec counts their all-reduce on a single rank too, and at the bandwidth between hosts where there is one host.
    """
    if shard.perf is None:
        return 0.0
    if option.sharding_type != "data_parallel":
        return shard.perf.total
    speed = (plan.hbm_gb_per_second if plan.device == "cuda" else plan.host_gb_per_second) * GB / 1000
    update = option.tensor.numel() * option.tensor.element_size() * DP_ELEMENTWISE_KERNELS_PERF_FACTOR / speed
    return shard.perf.total - shard.perf.bwd_comms + update
