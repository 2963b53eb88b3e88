"""Collaborative filtering on real ranks: one process's losses, gradients and metrics, on one, two and four."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
import torch.distributed as dist

from cove_dist.distributed import process_group
from cove_dist.tasks.cf import vectors
from cove_dist.tasks.cf.evaluator import build_cf_evaluator
from cove_dist.tasks.cf.loaders import cf_training_loader
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.build import build
from data_pipeline.history import History
from data_pipeline.schema import Schema
from tests.configurations import COVE
from tests.distributed.cf_reference import Reference
from tests.distributed.ranks import run_ranks
from tests.interactions import SMALL_RUN, prepare_small

STEP = (
    *SMALL_RUN,
    "trainer.batch_size=4000",  # all rows: one step an epoch
    "negatives.count=2",
    "embeddings.init_std=0.3",
    "embeddings.optimizer.name=sgd",
    "embeddings.optimizer.learning_rate=1.0",
)
WITH_COVE = (*COVE, "quantizer.omega_q=0.7")
HARDEST = ("negatives.hardest_of=3",)
MODELS = {
    "bprmf": ("model=bprmf", "model.regularization=0.1", "embeddings.sharding.default=row_wise"),
    "hardest_bprmf": ("model=bprmf", "model.regularization=0.1", *HARDEST, "embeddings.sharding.default=row_wise"),
    "hardest_lightgcn": (
        "model=lightgcn",
        "model.regularization=0.1",
        *HARDEST,
        "embeddings.sharding.default=row_wise",
    ),
    "hardest_cove_bprmf": (
        "model=bprmf",
        *WITH_COVE,
        *HARDEST,
        "negatives.hardest_share=0.4",
        "embeddings.sharding.default=row_wise",
    ),
    "hardest_cove_cfkg": (
        "model=cfkg",
        *WITH_COVE,
        *HARDEST,
        "negatives.hardest_share=0.4",
        "embeddings.sharding.default=data_parallel",
    ),
    "cove_neumf": ("model=neumf", *WITH_COVE, "embeddings.sharding.default=row_wise"),
    "cove_cfkg": ("model=cfkg", *WITH_COVE, "embeddings.sharding.default=table_wise"),
    "pulled_cfkg": ("model=cfkg", "interactions.neighbor_pull=0.6", "embeddings.sharding.default=row_wise"),
    "averaged_cove_bprmf": (
        "model=bprmf",
        *WITH_COVE,
        "quantizer.learning=ema",
        "embeddings.sharding.default=row_wise",
    ),
    "lightgcn": ("model=lightgcn", "model.regularization=0.1", "embeddings.sharding.default=row_wise"),
    "cove_lightgcn": ("model=lightgcn", *WITH_COVE, "embeddings.sharding.default=row_wise"),
    "replicated_cove_lightgcn": ("model=lightgcn", *WITH_COVE, "embeddings.sharding.default=data_parallel"),
    "replicated_cove_cfkg": ("model=cfkg", *WITH_COVE, "embeddings.sharding.default=data_parallel"),
}


SPARSE = (
    *SMALL_RUN,
    "model=bprmf",
    "model.regularization=0.1",
    "embeddings.init_std=0.3",
    "embeddings.optimizer.learning_rate=0.03",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_small(tmp_path_factory.mktemp("cf"))


def one_step(data: Path) -> dict[str, dict[str, Any]]:
    """For every model: this rank's ids, the loss, the parts of the tables after a step, gradients, metrics after it."""
    with process_group("cpu") as context:
        return {name: step_of(context, [*STEP, f"data.path={data}", *MODELS[name]]) for name in MODELS}


def step_of(context: Any, overrides: list[str]) -> dict[str, Any]:
    config, _ = load_run_config(overrides)
    schema = Schema.load(config.data.path)
    [batch] = cf_training_loader(config, schema, context)
    train_state = build(config, schema, context, len(batch))
    model = train_state.model.train()
    train_state.optimizer.zero_grad()
    loss, _ = model(batch)
    loss.backward()
    trained = {name: p for name, p in model.module.objective.named_parameters() if p.requires_grad}
    gradients = {name: p.grad.numpy().copy() for name, p in trained.items()}
    for name, part in train_state.optimizer.optimizers:
        if name == "replicated":  # but not the codebooks and the head, so that metrics can be compared
            for p in model.module.objective.parameters():
                p.grad = None
            part.step()
    tables = {}
    for key, weight in model.module.tables.state_dict().items():
        shards = weight.local_shards() if hasattr(weight, "local_shards") else None
        parts = [(0, weight)] if shards is None else [(s.metadata.shard_offsets[0], s.tensor) for s in shards]
        tables[key.split(".")[1]] = [(row, part.detach().numpy().copy()) for row, part in parts]
    names = [column for column in model.module.columns if not column.endswith("_block")]
    lengths = batch.ids["negatives"].lengths()[: len(batch)]
    total = loss.detach().clone()
    dist.all_reduce(total)

    def metrics() -> dict[str, dict[str, float]]:
        return {s: build_cf_evaluator(config, schema, s, context, {})(model) for s in ("validation", "test")}

    with patch.object(vectors, "_AT_ONCE", 17):
        metrics_of_parts = metrics()
    return {
        "ids": {name: batch.ids[name].values().numpy() for name in names} | {"lengths": lengths.numpy()},
        "loss": total.item() / context.world_size,
        "tables": tables,
        "gradients": gradients,
        "metrics": metrics(),
        "metrics_of_parts": metrics_of_parts,  # tables too large to be looked up at once
    }


@pytest.fixture(scope="module", params=[1, 2, 4])
def ranks(request: pytest.FixtureRequest, data: Path) -> list[dict[str, dict[str, Any]]]:
    return run_ranks(request.param, one_step, data, seconds=300)


@pytest.mark.parametrize("name", MODELS)
def test_losses_gradients_and_metrics_are_those_of_one_process(
    name: str, ranks: list[dict[str, dict[str, Any]]], data: Path
) -> None:
    results = [rank[name] for rank in ranks]
    reference = Reference([*STEP, f"data.path={data}", *MODELS[name]])
    drawn = {key: torch.from_numpy(np.concatenate([r["ids"][key] for r in results])) for key in results[0]["ids"]}
    for table in reference.tables.values():
        table.requires_grad_()
    loss = reference.loss(drawn, reference.tables)
    loss.backward()
    assert results[0]["loss"] == pytest.approx(loss.item(), abs=1e-5)
    after = {}
    for key, table in reference.tables.items():
        found = np.full(table.shape, np.nan, np.float32)
        for result in results:
            for row, part in result["tables"][key]:
                found[row : row + len(part)] = part
        expected = (table - table.grad).detach()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert table.grad.abs().max() > 1e-3
        after[key] = torch.from_numpy(found)
    parameters = {f"head.{key}": p for key, p in reference.head.named_parameters()}
    for entity, quantizer in reference.quantizers.items():
        codebooks = {key: p for key, p in quantizer.named_parameters() if p.requires_grad}
        parameters |= {f"quantizers.{entity}.{key}": p for key, p in codebooks.items()}
    for result in results:
        assert set(result["gradients"]) == set(parameters)
        for key, gradient in result["gradients"].items():
            np.testing.assert_allclose(gradient, parameters[key].grad, atol=1e-5)
    for split in ("validation", "test"):
        metrics = reference.metrics(after, split)
        for result in results:
            assert result["metrics"][split] == pytest.approx(metrics, abs=1e-6)
            assert result["metrics_of_parts"][split] == pytest.approx(metrics, abs=1e-6)


def test_negatives_are_never_in_training_and_all_rows_come_once(
    ranks: list[dict[str, dict[str, Any]]], data: Path
) -> None:
    ids = {
        key: np.concatenate([rank["bprmf"]["ids"][key] for rank in ranks])
        for key in ("user_id", "item_id", "negatives")
    }
    history = History.load(data, "train")
    users, items = history.of(np.arange(len(history)))
    assert sorted(zip(ids["user_id"], ids["item_id"], strict=True)) == list(zip(users, items, strict=True))
    assert not history.contains(ids["user_id"], ids["negatives"].reshape(-1, 2)).any()


def table_steps(data: Path, name: str, *further: str) -> tuple[list[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Two epochs of BPRMF under an optimizer: this rank's ids of every step, and the tables after the last."""
    config, _ = load_run_config([*SPARSE, f"data.path={data}", f"embeddings.optimizer.name={name}", *further])
    with process_group("cpu") as context:
        schema = Schema.load(data)
        loader, seen = cf_training_loader(config, schema, context), []
        train_state = build(config, schema, context, 30, len(loader))
        model = train_state.model.train()
        for epoch in range(2):
            loader.set_epoch(epoch)
            for batch in loader:
                train_state.optimizer.zero_grad()
                model(batch)[0].backward()
                train_state.optimizer.step()
                seen.append({name: batch.ids[name].values().numpy() for name in model.module.columns})
        tables = model.module.tables.state_dict()
        return seen, {key.split(".")[1]: table.detach().numpy().copy() for key, table in tables.items()}


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("name", ["sparse_adam", "sparse_rmsprop"])
def test_sparse_optimizers_are_those_of_torch_on_the_global_batch(data: Path, name: str, world_size: int) -> None:
    """RMSprop is Adam without a first moment on whole tables, whose gradients are 0 elsewhere."""
    results = run_ranks(world_size, table_steps, data, name)
    reference = Reference([*SPARSE, f"data.path={data}"])
    tables = [table.requires_grad_() for table in reference.tables.values()]
    sparse = name == "sparse_adam"
    optimizer = torch.optim.SparseAdam(tables, lr=0.03) if sparse else torch.optim.Adam(tables, 0.03, (0.0, 0.999))
    start = {name: table.detach().clone() for name, table in reference.tables.items()}
    for step in zip(*(seen for seen, _ in results), strict=True):
        drawn = {name: torch.from_numpy(np.concatenate([ids[name] for ids in step])) for name in step[0]}
        rows = [drawn["user_id"], torch.cat([drawn["item_id"], drawn["negatives"]])]
        gradients = torch.autograd.grad(reference.loss(drawn, reference.tables), tables)
        for table, ids, gradient in zip(tables, rows, gradients, strict=True):
            distinct = ids.unique()
            of_rows = torch.sparse_coo_tensor(distinct[None], gradient[distinct], table.shape, check_invariants=True)
            table.grad = of_rows if sparse else gradient
        optimizer.step()
    for name, table in reference.tables.items():
        assert (table - start[name]).abs().max() > 0.1
        for _, found in results:
            # Both divide gradients by their own size: rounding moves the elements whose gradients nearly cancel.
            difference = np.abs(found[name] - table.detach().numpy())
            assert difference.mean() < 1e-4
            assert difference.max() < 1e-2
    np.testing.assert_array_equal(results[0][1]["item_id"], results[-1][1]["item_id"])


def batches(data: Path, resumed: bool, source: str) -> list[list[np.ndarray]]:
    """Users, items and negatives of the epoch's batches from the third on."""
    config, _ = load_run_config([*SMALL_RUN, f"data.path={data}", "model=cfkg", f"negatives.source={source}"])
    with process_group("cpu") as context:
        loader = cf_training_loader(config, Schema.load(data), context)
        loader.set_epoch(3)
        epoch = iter(loader)
        for _ in range(2):
            next(epoch)
        if resumed:
            state = epoch.state_after(2)
            loader = cf_training_loader(config, Schema.load(data), context)
            loader.load_state_dict(state)
            epoch = iter(loader)
        return [[jagged.values().numpy() for jagged in batch.ids.to_dict().values()] for batch in epoch]


@pytest.mark.parametrize("source", ["uniform", "popularity"])
def test_negatives_and_edges_are_the_same_on_one_two_and_four_ranks(data: Path, source: str) -> None:
    [one] = run_ranks(1, batches, data, False, source)
    for world_size in (2, 4):
        ranks = run_ranks(world_size, batches, data, False, source)
        for whole, *parts in zip(one, *ranks, strict=True):
            for column, *of_ranks in zip(whole, *parts, strict=True):
                np.testing.assert_array_equal(np.concatenate(of_ranks), column)


@pytest.mark.parametrize("source", ["uniform", "popularity", "in_batch"])
def test_negatives_and_edges_are_the_same_after_a_restart(data: Path, source: str) -> None:
    went_on, restarted = (run_ranks(2, batches, data, resumed, source) for resumed in (False, True))
    assert len(went_on[0]) > 1
    for one, other in zip(went_on, restarted, strict=True):
        for left, right in zip(one, other, strict=True):
            for a, b in zip(left, right, strict=True):
                np.testing.assert_array_equal(a, b)
