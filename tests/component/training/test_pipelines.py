"""How a training step is taken: with the stages of TorchRec's pipeline, or plainly."""

from __future__ import annotations

from pathlib import Path

import pytest

from cove_dist.distributed import DistributedContext
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.pipelines import OverlappingPipeline, PlainPipeline
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.interactions import SMALL_RUN

SPARSE = "embeddings.optimizer.name=sparse_rmsprop"


def build(data: Path, context: DistributedContext, *overrides: str) -> Trainer:
    config, _ = load_run_config([*SMALL_RUN, f"data.path={data}", "model=bprmf", *overrides])
    return Trainer(config, Schema.load(data), context)


def losses(trainer: Trainer) -> list[float]:
    trainer.train_state.model.train()
    return [step.losses["loss"].item() for step in trainer.steps(iter(trainer.train_loader))]


@pytest.mark.parametrize("optimizer", ["adam", "sparse_rmsprop"])
def test_a_plain_step_is_that_of_the_pipeline_to_the_bit(
    interactions: Path, context: DistributedContext, optimizer: str
) -> None:
    plain = build(interactions, context, f"embeddings.optimizer.name={optimizer}")
    staged = build(interactions, context, f"embeddings.optimizer.name={optimizer}")
    assert isinstance(plain.pipeline, PlainPipeline)
    staged.pipeline = OverlappingPipeline(staged.train_state, context.device)
    found = losses(plain)
    assert len(found) == len(plain.train_loader) > 1
    assert found == losses(staged)


def test_sharded_tables_keep_the_pipeline_that_exchanges_rows(interactions: Path, context: DistributedContext) -> None:
    sharded = ("embeddings.sharding.default=row_wise", "embeddings.optimizer.name=rowwise_adagrad")
    assert isinstance(build(interactions, context, *sharded).pipeline, OverlappingPipeline)


def test_debug_mode_trains_every_epoch(interactions: Path, context: DistributedContext) -> None:
    trainer = build(interactions, context, "trainer.debug=true", "trainer.epochs=3", SPARSE)
    progress = trainer.train(None)
    assert progress.epoch == 3
    assert progress.step == 3 * len(trainer.train_loader)


def test_columns_may_be_looked_up_in_any_order(interactions: Path, context: DistributedContext) -> None:
    trainer = build(interactions, context, SPARSE)
    tables, batch = trainer.train_state.model.module.tables, next(iter(trainer.train_loader))
    keys = batch.ids.keys()
    weights = {name: weight for name, weight in tables.state_dict().items()}
    there = tables(batch.ids)
    back = tables(batch.ids.permute([keys.index(key) for key in reversed(keys)]))
    for key in keys:
        table = "user_id" if key == "user_id" else "item_id"
        expected = weights[f"embeddings.{table}.weight"][batch.ids[key].values()]
        assert there[key].values().equal(expected)
        assert back[key].values().equal(expected)
        assert there[key].lengths().equal(batch.ids[key].lengths())
