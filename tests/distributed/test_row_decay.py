"""Decay of looked-up rows on real ranks: against whole tables in float64, and after a run is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torchrec.optim.rowwise_adagrad import RowWiseAdagrad

from cove_dist.training.program import train
from data_pipeline.schema import Schema
from tests.configurations import small_run
from tests.distributed.cf_reference import Reference
from tests.distributed.ranks import run_ranks
from tests.distributed.test_cf import SPARSE, table_steps
from tests.distributed.test_quantizer_ranks import Trained
from tests.distributed.test_training import NO_DROPOUT, train_until, training_losses
from tests.interactions import SMALL_RUN, prepare_small

DECAY, RATE = 0.3, 0.03
RATES = ("trainer.warmup_steps=3", "trainer.schedule.name=linear")
LARGE = "embeddings.optimizer.learning_rate=0.05"
Build = Callable[[list[torch.Tensor]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, Build] = {
    "adam": lambda tables: torch.optim.Adam(tables, RATE),
    "adagrad": lambda tables: torch.optim.Adagrad(tables, RATE, eps=1e-8),
    "rowwise_adagrad": lambda tables: RowWiseAdagrad(tables, RATE, eps=1e-8),
    "sgd": lambda tables: torch.optim.SGD(tables, RATE),
    "sparse_adam": lambda tables: torch.optim.SparseAdam(tables, RATE),
    "sparse_rmsprop": lambda tables: torch.optim.Adam(tables, RATE, (0.0, 0.999)),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_small(tmp_path_factory.mktemp("decay"))


def decay_of(name: str) -> tuple[str, ...]:
    return (
        f"embeddings.optimizer.name={name}",
        f"embeddings.optimizer.weight_decay={DECAY}",
        "embeddings.optimizer.weight_decay_rows=looked_up",
    )


def missed(gap: int, name: str) -> float:
    """What a row's gradient gets, as a factor of the row."""
    return (1 - (1 - RATE * DECAY) ** gap) / RATE if name == "sgd" else DECAY * gap


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("power", [0.0, 0.6])
def test_decay_by_frequency_is_that_of_whole_tables(data: Path, power: float, world_size: int) -> None:
    """Of all rows at every step, by Adagrad: those of ids with many interactions decay more."""
    decay = (f"embeddings.optimizer.weight_decay={DECAY}", f"embeddings.optimizer.weight_decay_frequency_power={power}")
    results = run_ranks(world_size, table_steps, data, "adagrad", *decay)
    reference = Reference([*SPARSE, f"data.path={data}"])
    counts = counts_of(data, reference.schema)
    tables = {key: table.double().requires_grad_() for key, table in reference.tables.items()}
    optimizer = OPTIMIZERS["adagrad"](list(tables.values()))
    for step in zip(*(seen for seen, _ in results), strict=True):
        drawn = {key: torch.from_numpy(np.concatenate([ids[key] for ids in step])) for key in step[0]}
        gradients = torch.autograd.grad(reference.loss(drawn, tables), list(tables.values()))
        for (key, table), gradient in zip(tables.items(), gradients, strict=True):
            weights = counts[key] ** power if power else torch.ones(len(table), dtype=torch.float64)
            mean = weights[counts[key] > 0].mean()
            table.grad = gradient + DECAY * (weights / mean).unsqueeze(1) * table.detach()
        optimizer.step()
    for key, table in tables.items():
        for _, found in results:
            assert np.abs(found[key] - table.detach().numpy()).max() < 1e-3


def counts_of(data: Path, schema: Schema) -> dict[str, torch.Tensor]:
    rows = pq.read_table([data / file for file in schema.splits["train"].files])
    sizes = {name: schema.entity(name[:4]).num_rows for name in ("user_id", "item_id")}
    counts = {name: np.bincount(rows[name].to_numpy(), minlength=size) for name, size in sizes.items()}
    return {name: torch.from_numpy(count).double() for name, count in counts.items()}


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_looked_up_rows_decay_by_the_steps_that_they_missed(data: Path, name: str, world_size: int) -> None:
    """Two epochs of the global batches, by torch's own optimizers on whole tables."""
    results = run_ranks(world_size, table_steps, data, name, *decay_of(name))
    reference = Reference([*SPARSE, f"data.path={data}"])
    tables = {key: table.double().requires_grad_() for key, table in reference.tables.items()}
    optimizer, last, most = OPTIMIZERS[name](list(tables.values())), {}, 0
    for number, step in enumerate(zip(*(seen for seen, _ in results), strict=True), start=1):
        drawn = {key: torch.from_numpy(np.concatenate([ids[key] for ids in step])) for key in step[0]}
        gradients = torch.autograd.grad(reference.loss(drawn, tables), list(tables.values()))
        for (key, table), gradient in zip(tables.items(), gradients, strict=True):
            rows = gradient.any(dim=1).nonzero().flatten()
            for row in rows.tolist():
                gap = number - last.get((key, row), 0)
                gradient[row] += missed(gap, name) * table.detach()[row]
                last[key, row], most = number, max(most, gap)
            sparse = torch.sparse_coo_tensor(rows[None], gradient[rows], table.shape, check_invariants=True)
            table.grad = sparse if name == "sparse_adam" else gradient
        optimizer.step()
    assert most > 3
    for key, table in tables.items():
        for _, found in results:
            difference = np.abs(found[key] - table.detach().numpy())
            assert difference.mean() < 1e-4
            assert difference.max() < 1e-2
    np.testing.assert_array_equal(results[0][1]["item_id"], results[-1][1]["item_id"])


@pytest.mark.parametrize("name", ["adam", "sgd", "sparse_rmsprop"])
def test_a_killed_run_goes_on_exactly(data: Path, tmp_path: Path, name: str) -> None:
    def overrides(folder: str) -> list[str]:
        saving = ("trainer.checkpoint.every_steps=2", "trainer.log_every=1", *RATES)
        return [*SMALL_RUN, "model=bprmf", f"data.path={data}", f"output={tmp_path / folder}", *saving, *decay_of(name)]

    run_ranks(2, train, overrides("whole"))
    with pytest.raises(AssertionError, match="died"):
        run_ranks(2, train_until, overrides("killed"), 5)
    run_ranks(2, train, [*overrides("killed"), "trainer.checkpoint.resume=auto"])
    whole, resumed = (training_losses(tmp_path / folder) for folder in ("whole", "killed"))
    assert len(whole) > 6
    assert resumed == whole


def test_pooled_tables_decay_too(prepared: Path) -> None:
    """Those of click-through rates: the same on two ranks as on one, and not as without decay."""
    overrides = small_run(prepared, "unused", NO_DROPOUT, "embeddings.init_std=0.3", LARGE, *decay_of("adagrad"))
    one = run_ranks(1, Trained, overrides, 8)[0].losses
    without = ("embeddings.optimizer.weight_decay=0", "embeddings.optimizer.weight_decay_rows=all")
    plain = run_ranks(1, Trained, [*overrides, *without], 8)[0].losses
    assert all(rank.losses == pytest.approx(one, rel=2e-5) for rank in run_ranks(2, Trained, overrides, 8))
    assert one[0] == plain[0]
    assert all(a != pytest.approx(b, rel=1e-4) for a, b in zip(one[1:], plain[1:], strict=True))
