"""A plan compared with what real ranks use: bytes of tensors, and memory of the processes."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from cove_dist.distributed import DistributedContext, process_group
from cove_dist.embeddings.parts import local_parts, table_weights
from cove_dist.planning.program import plan_run
from cove_dist.planning.request import Request, read_request
from cove_dist.torch_compat import ShardedTensor
from cove_dist.training.memory import resident_mb
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import small_run
from tests.distributed.ranks import run_ranks

MB = 1 << 20
STEPS = 4


class Used(NamedTuple):
    """What a rank used, in bytes."""

    weights: int
    optimizer_state: int
    gradients: int
    peak: float


def larger(schema: Schema, rows: Mapping[str, int]) -> Schema:
    """The schema with tables of so many rows, of which the data look up a few."""
    columns = tuple(replace(c, num_ids=rows[c.name], num_seen=rows[c.name] - 1) for c in schema.categorical)
    return replace(schema, categorical=columns)


def bytes_of(tensors: Iterable[Any]) -> int:
    return sum(part.values.nbytes for tensor in tensors for part in local_parts(tensor))


def state_tensors(values: Any) -> Iterable[torch.Tensor | ShardedTensor]:
    if isinstance(values, torch.Tensor | ShardedTensor):
        yield values
    elif isinstance(values, Mapping):
        for each in values.values():
            yield from state_tensors(each)


def trained(request: Request, context: DistributedContext) -> Trainer:
    trainer = Trainer(request.config, request.schema, context)
    trainer.train(None)
    return trainer


def used(small: Request, request: Request) -> Used:
    """Train a few steps, and count the tensors and the memory of this rank, beyond that of a run with small tables."""
    with process_group("cpu") as context:
        trained(small, context)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
        before = resident_mb()
        trainer = trained(request, context)
        peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024 - before
        tables, optimizer = trainer.train_state.model.module.tables, trainer.train_state.optimizer.state_dict()
        states = {name: state for name, state in optimizer["state"].items() if ".tables." in f".{name}"}
        vectors = (each for each in state_tensors(states) if each.dim() > 0)
        gradients = (each.grad for each in tables.parameters() if each.grad is not None)
        return Used(*map(bytes_of, (table_weights(tables).values(), vectors, gradients)), peak * MB)


def planned(prepared: Path, world_size: int, *overrides: str) -> Request:
    settings = [f"world_size={world_size}", f"local_world_size={world_size}", "device=cpu"]
    run = [each for each in small_run(prepared) if not each.startswith(("trainer.device", "trainer.batch_size"))]
    return read_request([*settings, *run, f"trainer.max_steps={STEPS}", *overrides])


def by(optimizer: str, sharding: str, *further: str) -> tuple[str, ...]:
    return (f"embeddings.optimizer.name={optimizer}", f"embeddings.sharding.default={sharding}", *further)


@pytest.mark.parametrize(
    ("world_size", "rows", "tables"),
    [
        (1, 1_200_000, by("sgd", "table_wise")),
        (2, 400_000, by("adam", "data_parallel")),
        (2, 1_200_000, by("adagrad", "column_wise")),
        (4, 800_000, by("rowwise_adagrad", "row_wise", "+embeddings.sharding.item_id=data_parallel")),
    ],
    ids=["table_wise", "data_parallel", "column_wise", "row_wise"],
)
def test_ranks_use_the_planned_bytes(prepared: Path, world_size: int, rows: int, tables: tuple[str, ...]) -> None:
    request = planned(prepared, world_size, "embeddings.dim=64", "trainer.batch_size=240", *tables)
    small, large = (
        request._replace(schema=larger(request.schema, {"user_id": n, "item_id": n // 2})) for n in (6_000, rows)
    )
    measured: list[Used] = run_ranks(world_size, used, small, large, seconds=600)
    for rank, found in zip(plan_run(large).ranks, measured, strict=True):
        assert found[:3] == (rank.weights, rank.optimizer_state, rank.gradients)
        assert found.peak == pytest.approx(rank.device, rel=0.15)
