"""trainer.on_nan=skip: a step that is not finite leaves no trace in the state."""

from __future__ import annotations

import logging
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.sparse_optimizers import LookUpRows
from cove_dist.errors import ConfigError, TrainingError
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.loop import TrainingLoop
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.component.training.test_finite import tensors_of
from tests.component.training.test_trainer import trainer
from tests.configurations import COVE, ROW_WISE
from tests.interactions import SMALL_RUN


def break_losses(broken: Trainer, first: int, last: int) -> None:
    """Make the loss of these forward passes nan, with its gradient, as a division by zero would."""
    passes = 0

    def fault(_: Any, __: Any, result: tuple[torch.Tensor, Any]) -> tuple[torch.Tensor, Any]:
        nonlocal passes
        passes += 1
        return (result[0] * math.nan if first <= passes <= last else result[0]), result[1]

    broken.train_state.model.register_forward_hook(fault)


@pytest.mark.parametrize("tables", [(), ROW_WISE], ids=["replicated", "row-wise"])
def test_a_skipped_step_changes_nothing_and_is_counted(
    prepared: Path,
    context: DistributedContext,
    tmp_path: Path,
    tables: tuple[str, ...],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = trainer(
        prepared, context, "trainer.on_nan=skip", "trainer.max_steps=6", "trainer.log_every=3", *tables, *COVE
    )
    break_losses(run, 4, 4)
    states: list[list[torch.Tensor]] = []
    after_step = TrainingLoop.after_step

    def watching(*arguments: Any) -> None:
        states.append([value.clone() for _, value in tensors_of(run.train_state.state_dict())])
        after_step(*arguments)

    monkeypatch.setattr(TrainingLoop, "after_step", watching)
    with caplog.at_level(logging.WARNING):
        run.train(tmp_path)
    changed = [any(not torch.equal(a, b) for a, b in zip(*pair, strict=True)) for pair in pairwise(states)]
    assert changed == [True, True, False, True, True]
    assert "Step 4 is not finite: its update is left out" in caplog.text
    last = read_records(tmp_path / LOG_FILE)[-2]
    assert (last["step"], last["skipped_steps"]) == (6, 1)
    assert math.isfinite(last["loss"])


@pytest.mark.parametrize("tables", [(), ROW_WISE], ids=["replicated", "row-wise"])
def test_a_gradient_that_is_not_finite_although_the_loss_is(
    prepared: Path,
    context: DistributedContext,
    tmp_path: Path,
    tables: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sharded tables are updated inside the backward pass, which cannot be undone."""
    run = trainer(prepared, context, "trainer.on_nan=skip", "trainer.max_steps=5", "trainer.log_every=1", *tables)
    passes = 0

    def fault(gradient: torch.Tensor) -> torch.Tensor:
        nonlocal passes
        passes += 1
        return gradient * math.inf if passes == 3 else gradient

    weights = dict(run.train_state.model.module.objective.named_parameters())
    weight = next(value for value in weights.values() if value.dim() == 2)
    weight.register_hook(fault)
    if tables:
        with pytest.raises(TrainingError, match=r"gradients are not finite although the loss is.*data_parallel"):
            run.train(tmp_path)
        return
    seen: list[torch.Tensor] = []
    after_step = TrainingLoop.after_step

    def watching(*arguments: Any) -> None:
        seen.append(weight.detach().clone())
        after_step(*arguments)

    monkeypatch.setattr(TrainingLoop, "after_step", watching)
    run.train(tmp_path)
    assert [not torch.equal(*pair) for pair in pairwise(seen)] == [True, False, True, True]
    records = [record for record in read_records(tmp_path / LOG_FILE) if record["kind"] == "train"]
    assert [record.get("skipped_steps", 0) for record in records] == [0, 0, 1, 0, 0]


def test_a_gradient_of_a_table_with_a_sparse_optimizer_that_is_not_finite(
    interactions: Path, context: DistributedContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is kept as rows, beside the gradients of parameters, and would be written into table and moments."""
    sparse = ("model=bprmf", "embeddings.optimizer.name=sparse_adam", "trainer.max_steps=5", "trainer.on_nan=skip")
    config, _ = load_run_config([*SMALL_RUN, f"data.path={interactions}", "output=unused", *sparse])
    run = Trainer(config, Schema.load(interactions), context)
    passes, backward = 0, LookUpRows.backward

    def fault(ctx: Any, gradient: torch.Tensor) -> Any:
        nonlocal passes
        passes += 1
        return backward(ctx, gradient * math.inf if passes == 3 else gradient)

    monkeypatch.setattr(LookUpRows, "backward", staticmethod(fault))
    skipped: list[bool] = []
    after_step = TrainingLoop.after_step

    def watching(*arguments: Any) -> None:
        skipped.append(run.pipeline.skipped)
        after_step(*arguments)

    monkeypatch.setattr(TrainingLoop, "after_step", watching)
    run.train(None)
    assert skipped == [False, False, True, False, False]
    assert all(value.isfinite().all() for _, value in tensors_of(run.train_state.state_dict()))


def test_steps_that_are_never_finite_end_training(prepared: Path, context: DistributedContext) -> None:
    run = trainer(prepared, context, "trainer.on_nan=skip")
    break_losses(run, 3, 99)
    with pytest.raises(TrainingError, match="11 steps in a row are not finite"):
        run.train(None)
    assert run.progress.step == 12


def test_moving_averages_cannot_skip(prepared: Path, context: DistributedContext) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.on_nan = skip: .*quantizer\.learning=gradient"):
        trainer(prepared, context, "trainer.on_nan=skip", *COVE, "quantizer.learning=ema")
