"""Gradient accumulation against the gradient of all rows of a step at once."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from cove_dist.distributed import DistributedContext
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.optimization import gradient_norm
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import COVE, ROW_WISE, small_run
from tests.interactions import SMALL_RUN

SGD = ("trainer.optimizer.name=sgd", "trainer.optimizer.learning_rate=1", "embeddings.optimizer.learning_rate=1")
REPLICATED = ("embeddings.optimizer.name=sgd", "embeddings.sharding.default=data_parallel")


def trainer(context: DistributedContext, *overrides: str) -> Trainer:
    config, _ = load_run_config(overrides)
    return Trainer(config, Schema.load(config.data.path), context)


def parameters(trained: Trainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trained.train_state.model.named_parameters()}


@pytest.mark.parametrize("model", ["deepfm", "neumf"])
def test_a_step_is_that_of_all_its_rows(
    model: str, prepared: Path, interactions: Path, context: DistributedContext
) -> None:
    """Two steps of three batches each: by the mean loss of their rows, as autograd differentiates it."""
    base = small_run(prepared) if model == "deepfm" else [*SMALL_RUN, "model=neumf", f"data.path={interactions}"]
    overrides = (*base, "model.dropout=0", *SGD, *REPLICATED, "trainer.accumulate_steps=3")
    found, reference = trainer(context, *overrides), trainer(context, *overrides)
    found.train_state.model.train()
    steps = list(islice(found.steps(iter(found.train_loader)), 2))
    batches = list(reference.train_loader)
    inner = reference.train_state.model
    inner.train()
    for step, output in enumerate(steps):
        group = batches[3 * step : 3 * step + 3]
        rows = sum(len(batch) for batch in group)
        inner.zero_grad()
        losses = []
        for batch in group:
            loss, _ = inner(batch)
            (loss * (len(batch) / rows)).backward()
            losses.append(loss.item() * len(batch))
        with torch.no_grad():
            for parameter in inner.parameters():
                if parameter.grad is not None:
                    parameter -= parameter.grad
        assert output.rows == rows
        assert output.losses["loss"].item() == pytest.approx(sum(losses) / rows, rel=1e-5)
    expected = parameters(reference)
    for name, value in parameters(found).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_sparse_optimizers_accumulate_rows(interactions: Path, context: DistributedContext) -> None:
    """Under SGD's counterpart with one batch: three thirds of an epoch make the step of the whole epoch."""
    base = (
        *SMALL_RUN,
        "model=bprmf",
        f"data.path={interactions}",
        "embeddings.optimizer.name=sparse_adam",
        "trainer.shuffle_buffer=1000000",
    )
    rows = Schema.load(interactions).splits["train"].rows
    parts = trainer(context, *base, f"trainer.batch_size={-(-rows // 3)}", "trainer.accumulate_steps=3")
    parts.train_state.model.train()
    batches = list(parts.train_loader)
    [output] = parts.steps(iter(parts.train_loader))
    assert (output.rows, parts.progress.step, parts.progress.batches) == (rows, 1, 3)
    whole = trainer(context, *base)
    model = whole.train_state.model.train()
    whole.train_state.optimizer.zero_grad()
    for batch in batches:
        (model(batch)[0] * (len(batch) / rows)).backward()
    whole.train_state.optimizer.step()
    expected = parameters(whole)
    for name, value in parameters(parts).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.debug=true"], r"accumulate_steps = 3: not with debug=true; allowed: 1"),
        (["trainer.on_nan=skip"], r"accumulate_steps = 3: not with on_nan=skip"),
        ([*COVE, "quantizer.learning=ema"], r"accumulate_steps = 3: moving averages"),
    ],
)
def test_what_works_batch_by_batch_is_refused(prepared: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config(small_run(prepared, "unused", "trainer.accumulate_steps=3", *overrides))


def test_tables_that_are_updated_in_the_backward_pass_are_refused(prepared: Path, context: DistributedContext) -> None:
    with pytest.raises(ConfigError, match=r"accumulate_steps = 3: sharded tables .*default=data_parallel"):
        trainer(context, *small_run(prepared, "unused", *ROW_WISE, "trainer.accumulate_steps=3"))


def test_steps_of_more_batches_than_an_epoch_has_are_refused(prepared: Path, context: DistributedContext) -> None:
    message = r"accumulate_steps = 11: an epoch has 10 batches.*; allowed: 1 to 10, or a smaller trainer\.batch_size"
    with pytest.raises(ConfigError, match=message):
        trainer(context, *small_run(prepared, "unused", "trainer.accumulate_steps=11"))


def test_a_start_by_kmeans_collects_the_vectors_of_every_batch_of_a_step(
    prepared: Path, context: DistributedContext
) -> None:
    kmeans = ("quantizer.start=kmeans", "quantizer.kmeans_step=3", "quantizer.kmeans_batches=3")
    found = trainer(context, *small_run(prepared), *COVE, *kmeans, "trainer.accumulate_steps=3")
    found.train_state.model.train()
    batches = list(found.train_loader)
    next(found.steps(iter(found.train_loader)))
    found.codebooks.after_step(1)
    collected = found.codebooks.state_dict()["upkeep"]["collected"]
    for entity, ids in (("user", [batch.users for batch in batches]), ("item", [batch.items for batch in batches])):
        assert torch.equal(torch.cat([seen for _, _, seen in collected[entity]]), torch.cat(ids[:3]))


def test_the_last_step_of_an_epoch_is_reported_with_its_gradients(prepared: Path, context: DistributedContext) -> None:
    found = trainer(context, *small_run(prepared), *SGD, *REPLICATED, "trainer.accumulate_steps=3")
    found.train_state.model.train()
    for _ in found.steps(iter(found.train_loader)):
        norm = gradient_norm(found.train_state.model)
    assert gradient_norm(found.train_state.model) == norm > 0
