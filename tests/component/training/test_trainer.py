"""The trainer in a process group of one."""

from __future__ import annotations

import math
import os
from itertools import islice
from pathlib import Path

import pytest
import torch

from cove_dist.checkpoints.files import CheckpointFolder
from cove_dist.distributed import DistributedContext, bound_kernel_cache, process_group
from cove_dist.errors import ConfigError, TrainingError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.build import build
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import COVE, small_run


def trainer(prepared: Path, context: DistributedContext, *overrides: str) -> Trainer:
    config, _ = load_run_config(small_run(prepared, "unused", *overrides))
    return Trainer(config, Schema.load(prepared), context)


def losses(trained: Trainer, steps: int = 6) -> list[float]:
    trained.train_state.model.train()
    batches = iter(trained.train_loader)
    return [step.losses["loss"].item() for step in islice(trained.steps(batches), steps)]


def test_without_alpha_and_omega_cove_is_the_base_model_to_the_bit(prepared: Path, context: DistributedContext) -> None:
    base = losses(trainer(prepared, context))
    assert losses(trainer(prepared, context, *COVE, "quantizer.alpha=0", "quantizer.omega_q=0")) == base
    assert losses(trainer(prepared, context, *COVE)) != base


@pytest.mark.parametrize("optimizer", ["sgd", "adagrad", "rowwise_adagrad"])
def test_fused_and_replicated_tables_learn_alike(prepared: Path, context: DistributedContext, optimizer: str) -> None:
    """The update in the backward pass by fbgemm against the ordinary optimizer, from the same start."""
    settings = (
        f"embeddings.optimizer.name={optimizer}",
        "embeddings.optimizer.learning_rate=0.3",
        "embeddings.init_std=0.3",
    )
    fused = losses(trainer(prepared, context, *settings, "embeddings.sharding.default=row_wise"))
    replicated = losses(trainer(prepared, context, *settings, "embeddings.sharding.default=data_parallel"))
    frozen = losses(trainer(prepared, context, *settings, "embeddings.optimizer.learning_rate=1e-9"))
    assert fused == pytest.approx(replicated, rel=1e-4)
    assert fused != pytest.approx(frozen, rel=1e-4)


def test_learning_rates_rise_linearly_and_stay(prepared: Path, context: DistributedContext) -> None:
    warm = trainer(prepared, context, "trainer.warmup_steps=4", "embeddings.optimizer.learning_rate=0.004")
    rates = [[group["lr"] for group in warm.train_state.optimizer.param_groups]]
    batches = iter(warm.train_loader)
    for _ in islice(warm.steps(batches), 5):
        rates.append([group["lr"] for group in warm.train_state.optimizer.param_groups])
    assert [dense for dense, _ in rates] == pytest.approx([0.00025, 0.0005, 0.00075, 0.001, 0.001, 0.001])
    assert [tables for _, tables in rates] == pytest.approx([0.001, 0.002, 0.003, 0.004, 0.004, 0.004])


def test_gradients_are_clipped_by_their_norm(prepared: Path, context: DistributedContext) -> None:
    sgd = ("trainer.optimizer.name=sgd", "trainer.optimizer.learning_rate=1", "embeddings.optimizer.name=sgd")
    replicated = ("embeddings.optimizer.learning_rate=1", "embeddings.sharding.default=data_parallel")
    clipped = trainer(prepared, context, *sgd, *replicated, "trainer.gradient_clip_norm=0.001")
    weights = clipped.train_state.model.state_dict()
    before = {name: weight.clone() for name, weight in weights.items()}
    losses(clipped, steps=1)
    change = torch.cat([(weight - before[name]).flatten() for name, weight in weights.items()])
    assert change.norm().item() == pytest.approx(0.001, rel=1e-3)


def test_bfloat16_is_close_to_float32_and_leaves_losses_in_float32(prepared: Path, context: DistributedContext) -> None:
    whole = losses(trainer(prepared, context, *COVE, "model.dropout=0"))
    half = losses(trainer(prepared, context, *COVE, "model.dropout=0", "trainer.precision=bfloat16"))
    assert half != whole
    assert half == pytest.approx(whole, rel=0.01)


def test_training_stops_after_epochs_without_gain(
    prepared: Path, context: DistributedContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = trainer(prepared, context, "trainer.epochs=9", "trainer.early_stopping.patience=2")
    aucs = iter([0.6, 0.7, math.nan, 0.7, 0.9])
    monkeypatch.setattr(stopping, "evaluate", lambda: {"auc": next(aucs)})
    progress = stopping.train(tmp_path)
    assert progress.epoch == 4
    assert progress.best == 0.7
    assert CheckpointFolder(tmp_path / "checkpoints").best("auc").name == f"step_{progress.step // 2:08d}"


@pytest.mark.parametrize(
    ("last", "counted"),
    [
        (8, (0.7, 1)),  # the validations of steps 4 and 8
        (9, (0.7, 1)),  # a run that goes on does not validate at step 9
        (10, (0.9, 0)),  # the end of the epoch
    ],
)
def test_a_validation_that_is_due_at_the_last_step_counts(
    prepared: Path, context: DistributedContext, tmp_path: Path, last: int, counted: tuple[float, int]
) -> None:
    stopped = trainer(prepared, context, "trainer.validate_every_steps=4", f"trainer.max_steps={last}")
    aucs = {4: 0.7, 8: 0.6, 9: 0.8, 10: 0.9}
    stopped.evaluate = lambda: {"auc": aucs[stopped.progress.step]}  # type: ignore[method-assign]
    progress = stopped.train(tmp_path)
    assert (progress.best, progress.validations_without_gain) == counted


def test_a_loss_that_is_not_finite_stops_training_with_advice(prepared: Path, context: DistributedContext) -> None:
    broken = trainer(prepared, context)
    with torch.no_grad():
        next(broken.train_state.model.module.objective.parameters()).fill_(math.nan)
    with pytest.raises(TrainingError, match=r"loss not finite.*learning_rate"):
        broken.train(None)


def test_seeds_differ_and_repeat(prepared: Path, context: DistributedContext) -> None:
    first = losses(trainer(prepared, context))
    assert losses(trainer(prepared, context)) == first
    assert losses(trainer(prepared, context, "seed=1")) != first


def test_first_order_weights_start_at_zero_and_stay_one_number(prepared: Path, context: DistributedContext) -> None:
    trained = trainer(prepared, context)
    weights = {
        k: v for k, v in trained.train_state.model.state_dict().items() if "first_order.weight" in k and "bags" in k
    }
    assert weights
    assert all(not weight.any() for weight in weights.values())
    losses(trained)
    for weight in weights.values():
        assert weight.any()
        assert torch.equal(weight, weight[:, :1].expand_as(weight))


def test_kernels_of_few_shapes_are_kept_unless_the_user_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
    monkeypatch.setenv(name, "7")
    bound_kernel_cache()
    assert os.environ[name] == "7"
    monkeypatch.delenv(name)
    bound_kernel_cache()
    assert int(os.environ[name]) < 1024  # the number that oneDNN keeps by itself


def test_a_device_that_is_not_there(prepared: Path) -> None:
    if torch.cuda.is_available():
        assert process_group("cuda")
        return
    with pytest.raises(ConfigError, match=r"trainer\.device = cuda: .* 0 GPUs"), process_group("cuda"):
        pass


def test_a_sharding_that_the_optimizer_cannot_serve_is_refused(prepared: Path, context: DistributedContext) -> None:
    config, _ = load_run_config(small_run(prepared, "unused", "embeddings.sharding.default=row_wise"))
    with pytest.raises(ConfigError, match=r"embeddings\.sharding\.default = row_wise"):
        build(config, Schema.load(prepared), context, 64)


def test_reports_cover_every_step_across_epochs(
    prepared: Path, context: DistributedContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 steps an epoch, a report at step 1 and every 4: that of step 12 holds steps 9 and 10 of the epoch before."""
    reported = trainer(prepared, context, "trainer.log_every=4", "trainer.epochs=2")
    close, rows = reported.interval_metrics.close, []

    def counting(*, whole: bool) -> dict[str, float]:
        rows.append((reported.interval_metrics._rows, whole))
        return close(whole=whole)

    monkeypatch.setattr(reported.interval_metrics, "close", counting)
    reported.train(None)
    assert [whole for _, whole in rows] == [False, True, True, True, True, True]
    assert sum(count for count, whole in rows if whole) == 2 * Schema.load(prepared).splits["train"].rows
