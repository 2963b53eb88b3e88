"""The summary before the first step, and the values of the optimizer that are logged."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from cove_dist.console import console
from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.tables import FIRST_ORDER_DIM
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.optimization import gradient_norm, learning_rates
from cove_dist.training.summary import describe_start, sharding_table, show_start
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import ROW_WISE, small_run
from tests.interactions import SMALL_RUN


def trainer_of(prepared: Path, context: DistributedContext, *overrides: str) -> Trainer:
    config, _ = load_run_config(small_run(prepared, "unused", *overrides))
    return Trainer(config, Schema.load(prepared), context)


def test_the_summary_counts_rows_steps_and_parameters(prepared: Path, context: DistributedContext) -> None:
    schema, trainer = Schema.load(prepared), trainer_of(prepared, context)
    rows = schema.splits["train"].rows
    steps = len(trainer.train_loader)
    lines = "\n".join(describe_start(trainer.train_state.model, context, trainer.config, schema, steps))
    tables = sum(column.num_rows for column in schema.categorical) * (8 + FIRST_ORDER_DIM)
    dense = sum(parameter.numel() for parameter in trainer.train_state.model.module.objective.parameters())
    assert f"training rows: {rows:,}, steps per epoch: {-(-rows // 240)}" in lines
    assert f"parameters: {tables:,} in tables" in lines
    assert f", {dense:,} in the model" in lines
    assert "weights" not in lines


def test_the_plan_names_every_table_and_where_it_is(prepared: Path, context: DistributedContext) -> None:
    printed = Console(width=120)
    with printed.capture() as captured:
        printed.print(sharding_table(trainer_of(prepared, context, *ROW_WISE).train_state.model))
    text = captured.get()
    assert all(column.table_name in text for column in Schema.load(prepared).categorical)
    assert "row_wise" in text
    assert "fused" in text


@pytest.mark.parametrize(("level", "shown"), [(logging.WARNING, False), (logging.INFO, True)])
def test_the_plan_is_printed_where_infos_are_shown(
    prepared: Path, context: DistributedContext, caplog: pytest.LogCaptureFixture, level: int, shown: bool
) -> None:
    trainer = trainer_of(prepared, context)
    caplog.set_level(level, logger="cove_dist")
    with console.capture() as captured:
        show_start(trainer.train_state.model, context, trainer.config, Schema.load(prepared), 5)
    assert ("sharding plan" in captured.get()) is shown


def test_learning_rates_and_the_gradient_norm_are_the_optimizers(prepared: Path, context: DistributedContext) -> None:
    rates = ("trainer.optimizer.learning_rate=0.25", "embeddings.optimizer.learning_rate=0.5", "trainer.warmup_steps=2")
    trainer = trainer_of(prepared, context, *rates)
    assert learning_rates(trainer.train_state.optimizer) == {"learning_rate_dense": 0.125, "learning_rate_tables": 0.25}
    next(trainer.steps(iter(trainer.train_loader)))
    assert learning_rates(trainer.train_state.optimizer) == {"learning_rate_dense": 0.25, "learning_rate_tables": 0.5}
    gradients = [p.grad.double().flatten() for p in trainer.train_state.model.parameters() if p.grad is not None]
    assert gradient_norm(trainer.train_state.model).item() == pytest.approx(torch.cat(gradients).norm().item())
    assert gradient_norm(trainer.train_state.model) > 0


def test_without_gradients_to_measure_there_is_no_norm(
    interactions: Path, context: DistributedContext, tmp_path: Path
) -> None:
    """All parameters of BPRMF are in tables, and a sparse optimizer keeps no gradient of them: 0 would be wrong."""
    sparse = ("model=bprmf", "embeddings.optimizer.name=sparse_adam", "trainer.max_steps=2")
    config, _ = load_run_config([*SMALL_RUN, f"data.path={interactions}", "output=unused", *sparse])
    Trainer(config, Schema.load(interactions), context).train(tmp_path)
    records = [record for record in read_records(tmp_path / LOG_FILE) if record["kind"] == "train"]
    assert records
    assert not any("gradient_norm" in record for record in records)


def test_an_epoch_of_one_step_is_hinted_at(prepared: Path, context: DistributedContext) -> None:
    trainer, schema = trainer_of(prepared, context), Schema.load(prepared)
    run = (trainer.train_state.model, context, trainer.config, schema)
    rows = f"{schema.splits['train'].rows:,}"
    assert (
        f"an epoch is one step: all {rows} rows are in it; a smaller trainer.batch_size" in describe_start(*run, 1)[-1]
    )
    assert not any("one step" in line for line in describe_start(*run, 2))


@pytest.mark.parametrize(("overrides", "metrics"), [
    ((), "sample weights: the loss is weighted; metrics are not"),
    (("evaluation.weighted=true",), "sample weights: the loss, AUC and metrics that are means over rows are weighted"),
])  # fmt: skip
def test_what_sample_weights_act_on_is_said(
    prepared: Path, context: DistributedContext, overrides: tuple[str, ...], metrics: str
) -> None:
    trainer, schema = trainer_of(prepared, context), replace(Schema.load(prepared), weight="weight")
    config, _ = load_run_config(small_run(prepared, "unused", *overrides))
    assert metrics in describe_start(trainer.train_state.model, context, config, schema, 2)[-1]


def test_a_warm_up_and_a_start_by_k_means_after_the_last_step_are_warned_of(
    prepared: Path, context: DistributedContext, caplog: pytest.LogCaptureFixture
) -> None:
    late = ("quantizer=cove", "quantizer.start=kmeans", "quantizer.kmeans_step=21", "trainer.warmup_steps=20")
    trainer, schema = trainer_of(prepared, context, *late), Schema.load(prepared)
    config = replace(trainer.config, trainer=replace(trainer.config.trainer, epochs=4, max_steps=None))
    caplog.clear()
    show_start(trainer.train_state.model, context, config, schema, 5)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert [each.split(":")[0] for each in warnings] == ["trainer.warmup_steps = 20", "quantizer.kmeans_step = 21"]
    assert "training has 20 steps, so that codebooks stay random" in warnings[1]
    caplog.clear()
    warm = replace(config, warm_start=replace(config.warm_start, run="runs/before"))
    show_start(trainer.train_state.model, context, warm, schema, 5)
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("trainer.warmup_steps = 20")
    lines = describe_start(trainer.train_state.model, context, warm, schema, 5)
    assert "quantizer.start = kmeans: not in this run: codebooks are those of warm_start.run = runs/before" in lines
    assert not any("kmeans" in line for line in describe_start(trainer.train_state.model, context, config, schema, 5))
    caplog.clear()
    show_start(trainer.train_state.model, context, config, schema, 6)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
