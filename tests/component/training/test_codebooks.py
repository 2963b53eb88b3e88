"""Health of codebooks in a run: records, revivals, and what they leave as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cove_dist.distributed import DistributedContext
from cove_dist.loggers.base import tag
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import COVE, small_run

MANY = (*COVE, "quantizer.item_levels=[70,4]")  # of 80 items: some are always dead
KMEANS = ("quantizer.start=kmeans", "quantizer.kmeans_step=3", "quantizer.kmeans_batches=3")
REVIVAL = (*MANY, *KMEANS, "quantizer.revive_every=4")


def trained(prepared: Path, context: DistributedContext, folder: Path, *overrides: str) -> Trainer:
    config, _ = load_run_config(small_run(prepared, folder, *overrides))
    trainer = Trainer(config, Schema.load(prepared), context)
    folder.mkdir()
    trainer.train(folder)
    return trainer


def test_a_run_records_health_and_revivals_in_its_log_and_tensorboard(
    prepared: Path, context: DistributedContext, tmp_path: Path
) -> None:
    """10 steps an epoch; levels 8, 3 of users and 70, 4 of items."""
    trained(prepared, context, tmp_path / "run", *REVIVAL)
    records = read_records(tmp_path / "run" / LOG_FILE)
    levels = [f"{entity}_{level}" for entity in ("user", "item") for level in (1, 2)]
    epochs = [record for record in records if record["kind"] == "codebooks"]
    assert [(record["step"], record["epoch"]) for record in epochs] == [(10, 1), (20, 2)]
    steps = {record["step"]: record for record in records if record["kind"] == "train"}
    for record in (*epochs, *steps.values()):
        for level, size in zip(levels, (8, 3, 70, 4), strict=True):
            assert 1 <= record[f"perplexity_{level}"] <= size + 1e-9
            assert 0 <= record[f"dead_{level}"] < 1
    revivals = {step for step, record in steps.items() if all(f"revived_{level}" in record for level in levels)}
    assert revivals == {8, 12, 16, 20}  # not after one of the 4 steps since the start at step 3
    assert not any(name.startswith("revived") for step in steps.keys() - revivals for name in steps[step])
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for name in ("perplexity_item_1", "dead_user_2"):
        logged = [event.value for event in board.Scalars(tag("codebooks", name))]
        assert logged == pytest.approx([record[name] for record in epochs])
    assert [event.step for event in board.Scalars(tag("train", "revived_item_1"))] == sorted(revivals)


def test_revivals_between_reports_are_added_up(prepared: Path, context: DistributedContext, tmp_path: Path) -> None:
    often = ("quantizer.revive_every=1", "trainer.epochs=1")
    trained(prepared, context, tmp_path / "every", *MANY, *often)
    trained(prepared, context, tmp_path / "fifth", *MANY, *often, "trainer.log_every=5")
    every, fifth = (
        [r["revived_item_1"] for r in read_records(tmp_path / name / LOG_FILE) if r["kind"] == "train"]
        for name in ("every", "fifth")
    )
    assert fifth == [every[0], sum(every[:5]), sum(every[5:])]
    assert sum(every) > 0


@pytest.mark.parametrize("clipping", ["null", "1.0"])
def test_moments_of_revived_codes_are_found_with_and_without_clipping(
    prepared: Path, context: DistributedContext, clipping: str
) -> None:
    config, _ = load_run_config(
        small_run(prepared, "unused", *MANY, "quantizer.revive_every=3", f"trainer.gradient_clip_norm={clipping}")
    )
    trainer = Trainer(config, Schema.load(prepared), context)
    trainer.train_state.model.train()
    codebook = trainer.train_state.model.module.objective.quantizers["item"].codebooks[0]
    for _ in trainer.steps(iter(trainer.train_loader)):
        before = codebook.detach().clone()
        revived = trainer.codebooks.after_step(trainer.progress.step).get("revived_item_1", 0)
        if revived:
            break
    moved = (codebook != before).any(dim=1)
    moments = trainer.train_state.optimizer.state[codebook]
    assert moved.sum() == revived > 0
    assert not moments["exp_avg"][moved].any()
    assert moments["exp_avg"][~moved].any()


def test_without_alpha_and_omega_moving_averages_and_revival_leave_the_base_model_to_the_bit(
    prepared: Path, context: DistributedContext, tmp_path: Path
) -> None:
    base = trained(prepared, context, tmp_path / "base")
    off = ("quantizer.alpha=0", "quantizer.omega_q=0", "quantizer.learning=ema")
    cove = trained(prepared, context, tmp_path / "cove", *REVIVAL, *off)
    assert cove.train_state.model.module.objective.quantizers["item"].observations == []
    losses = [
        [r["loss"] for r in read_records(tmp_path / name / LOG_FILE) if r["kind"] == "train"]
        for name in ("base", "cove")
    ]
    assert len(losses[0]) == 20
    assert losses[0] == losses[1]
    theirs = cove.train_state.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in base.train_state.model.state_dict().items())


def test_no_quantizers_have_no_records(prepared: Path, context: DistributedContext, tmp_path: Path) -> None:
    trained(prepared, context, tmp_path / "run", "trainer.epochs=1")
    assert {record["kind"] for record in read_records(tmp_path / "run" / LOG_FILE)} == {"train", "validation"}
