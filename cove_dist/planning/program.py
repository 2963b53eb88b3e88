"""Planning a training run: no GPU, no process group, tables on the meta device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch

from cove_dist.config import EmbeddingsConfig
from cove_dist.embeddings.optimizers import fuse_optimizer
from cove_dist.errors import ConfigError
from cove_dist.planning.memory import (
    FLOAT,
    ID,
    RankBytes,
    add_lookups,
    add_tables,
    dense_bytes,
    gradient_bytes,
    table_state,
    totals,
)
from cove_dist.planning.placement import GB, PlacedTable, place_tables
from cove_dist.planning.request import PlanConfig, Request
from cove_dist.planning.step import StepCost, step_cost
from cove_dist.planning.traffic import Traffic, step_traffic
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.lookups import lookups_by_table
from cove_dist.tasks.registry import task_of
from data_pipeline.errors import DataError

_TFLOPS = {"cuda": 50.0, "cpu": 0.05}


class StepTime(NamedTuple):
    """Milliseconds of a step, one part after the other: nothing overlaps.

    Attributes:
        tables: Look-ups and updates of tables, and what ranks exchange for those that are sharded.
        dense: Matrix products.
        all_reduce: All-reduce of the gradients of the other parameters and of data-parallel tables.
    """

    tables: float
    dense: float
    all_reduce: float

    @property
    def total(self) -> float:
        return sum(self)


@dataclass(frozen=True)
class Plan:
    """A planned run.

    Attributes:
        request: What is planned.
        rows: Rows of a rank's batch.
        tables: Placed tables; empty where TorchRec's planner finds no placement.
        table_bytes: Weights and optimizer state of all tables, once each.
        ranks: Bytes by rank; empty without a placement.
        traffic, time: Bytes that a rank sends and milliseconds of a step; None without a placement.
    """

    request: Request
    rows: int
    tables: list[PlacedTable]
    table_bytes: int
    ranks: list[RankBytes]
    traffic: Traffic | None
    time: StepTime | None

    @property
    def capacity(self) -> int:
        """Bytes of a rank's device that a run may use."""
        settings = self.request.settings
        if settings.device == "cpu":
            return int(settings.host_gb * GB / settings.ranks_per_host)
        return int(settings.hbm_gb * GB * (1 - settings.reserve))

    @property
    def host_bytes(self) -> int:
        """Bytes of the fullest host's memory while a checkpoint is written; on CPU with what its ranks train."""
        settings = self.request.settings
        trained = [rank.device if settings.device == "cpu" else 0 for rank in self.ranks]
        of_rank = [more + rank.host + rank.checkpoint for more, rank in zip(trained, self.ranks, strict=True)]
        size = settings.ranks_per_host
        return max((sum(of_rank[first : first + size]) for first in range(0, len(of_rank), size)), default=0)

    @property
    def fits(self) -> bool:
        """Whether every rank has enough memory on its device, and every host, also while a checkpoint is written."""
        on_device = bool(self.ranks) and totals(self.ranks)["total"] <= self.capacity
        return on_device and self.host_bytes <= self.request.settings.host_gb * GB

    def record(self) -> dict[str, Any]:
        """Return the plan as plain values, for JSON."""
        settings = self.request.settings
        tables = [
            {"table": t.name, "rows": t.rows, "dim": t.dim, "sharding": t.sharding, "kernel": t.kernel,
             "ranks": sorted({shard.rank for shard in t.shards}),
             "shards": sorted({(shard.rows, shard.columns) for shard in t.shards})}
            for t in self.tables
        ]  # fmt: skip
        return {
            "fits": self.fits,
            "world_size": settings.world_size,
            "local_world_size": settings.ranks_per_host,
            "device": settings.device,
            "rows_per_rank": self.rows,
            "capacity_bytes": self.capacity,
            "table_bytes": self.table_bytes,
            "tables": tables,
            "bytes_per_rank": dict(totals(self.ranks)) if self.ranks else None,
            "ranks": [asdict(rank) for rank in self.ranks],
            "traffic_bytes": None if self.traffic is None else self.traffic._asdict(),
            "step_ms": None if self.time is None else {**self.time._asdict(), "total": self.time.total},
        }


def plan_run(request: Request) -> Plan:
    """Plan a run.

    Raises:
        ConfigError: A setting does not fit the device or the data, or the model cannot be planned from sizes.
    """
    config, schema, settings = request.config, request.schema, request.settings
    task = task_of(config)
    if (reason := task.unplannable(config)) is not None:
        raise ConfigError(f"model = {config.model.name}: {reason}; plan another model, or train a small run of it")
    rows = config.trainer.rank_batch_size(settings.world_size)
    model = _build_model(request)
    fuse_optimizer(model.tables, config.embeddings, settings.device)
    lookups = task.lookups(config, schema, rows, settings.world_size)
    per_table = lookups_by_table(model.tables, config, schema, rows, settings.world_size)
    placed = place_tables(model, config.embeddings, settings, rows, per_table)
    bytes_ = _bytes_of_tables(model, request)
    if placed is None:
        return Plan(request, rows, [], bytes_, [], None, None)
    cost = step_cost(model, schema, lookups, rows)
    ranks = _ranks(model, placed, per_table, cost, rows, request)
    gathered = gathered_rows(placed, per_table, rows, config.embeddings, settings)
    for rank in ranks:
        rank.lookups += gathered
    # Ranks send as much to gather rows as to reduce half of their bytes
    reduced = gradient_bytes(model.objective) + ranks[0].gradients + gathered // 2
    traffic = step_traffic(placed, per_table, rows, settings.world_size, settings.ranks_per_host, reduced)
    return Plan(request, rows, placed, bytes_, ranks, traffic, _time(placed, cost, reduced, settings))


def gathered_rows(
    placed: Sequence[PlacedTable],
    lookups: Mapping[str, list[float]],
    rows: int,
    embeddings: EmbeddingsConfig,
    settings: PlanConfig,
) -> int:
    """Return the bytes of ids and gradients of all ranks that each gathers for sparse optimizers on CPU.

    Ranks of one host share the tables, and gather nothing.
    """
    several_hosts = settings.world_size > settings.ranks_per_host
    if not (embeddings.optimizer.is_sparse and settings.device == "cpu" and several_hosts):
        return 0
    replicated = [table for table in placed if not table.is_sharded]
    of_rank = sum(sum(lookups[table.name]) * rows * (table.dim * FLOAT + ID) for table in replicated)
    return int(of_rank * settings.world_size)


def _build_model(request: Request) -> TaskModel:
    with torch.random.fork_rng(devices=[]):
        try:
            return task_of(request.config).build_model(request.config, request.schema)
        except DataError as error:
            if request.settings.items is None:
                raise
            raise ConfigError(
                f"items: model={request.config.model.name} with these settings reads the data themselves"
                f" ({error}); give a prepared folder by data=FOLDER"
            ) from error


def _bytes_of_tables(model: TaskModel, request: Request) -> int:
    embeddings = request.config.embeddings
    shapes = [weight.shape for weight in model.tables.parameters()]
    states = (table_state(embeddings, rows, columns, sharded=True) for rows, columns in shapes)
    return sum(4 * rows * columns for rows, columns in shapes) + sum(states)


def _ranks(
    model: TaskModel,
    placed: list[PlacedTable],
    lookups: Mapping[str, list[float]],
    cost: StepCost,
    rows: int,
    request: Request,
) -> list[RankBytes]:
    settings, config = request.settings, request.config
    dense = dense_bytes(model.objective, config.trainer.optimizer)
    saved, activations = dense - gradient_bytes(model.objective), int(cost.activations)
    ranks = [RankBytes(dense=dense, activations=activations, checkpoint=saved) for _ in range(settings.world_size)]
    for table in placed:
        add_tables(ranks, table, config.embeddings, settings.device)
        add_lookups(ranks, table, lookups[table.name], rows, settings.ranks_per_host)
    return ranks


def _time(placed: list[PlacedTable], cost: StepCost, reduced: int, settings: PlanConfig) -> StepTime:
    """Estimate the step: the slowest rank's tables by TorchRec, matrix products, and the ring of gradients."""
    tables = max(sum(table.milliseconds[rank] for table in placed) for rank in range(settings.world_size))
    one_host = settings.world_size <= settings.ranks_per_host
    bandwidth = settings.intra_host_gb_per_second if one_host else settings.inter_host_gb_per_second
    ring = 2 * (settings.world_size - 1) / settings.world_size * reduced
    tflops = settings.tflops or _TFLOPS[settings.device]
    return StepTime(tables, cost.flops / (tflops * 1e9), ring / (bandwidth * GB / 1000))


class Suggestion(NamedTuple):
    """A change of settings with which the run fits.

    Attributes:
        overrides: The change, to append to the command.
        plan: Its plan.
    """

    overrides: list[str]
    plan: Plan


def suggest(request: Request) -> list[Suggestion]:
    """Return changes with which a run that does not fit does, the smallest changes first."""
    found = []
    for overrides in _changes(request):
        try:
            plan = plan_run(request.changed(overrides))
        except ConfigError:  # not with the other settings
            continue
        if plan.fits:
            found.append(Suggestion(list(overrides), plan))
    return found


def _changes(request: Request) -> Sequence[tuple[str, ...]]:
    """Return the changes to try: placement, then optimizer, then host memory, then both, then narrower tables."""
    rowwise = ("embeddings.optimizer.name=rowwise_adagrad",)
    by_rows, by_columns = ("embeddings.sharding.default=row_wise",), ("embeddings.sharding.default=column_wise",)
    half = max(4, request.config.embeddings.dim // 2 // 4 * 4)
    changes = [by_rows, by_columns, rowwise, (*rowwise, *by_rows)]
    if request.settings.device == "cuda":
        cached = ("embeddings.cache_load_factor=0.2",)
        changes += [cached, (*cached, *by_rows), (*rowwise, *cached, *by_rows)]
    return [*changes, (*rowwise, *by_rows, f"embeddings.dim={half}")]
