"""Health of codebooks in a run: figures, warnings, records."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cove_dist.config import QuantizerConfig
from cove_dist.distributed import DistributedContext
from cove_dist.loggers.base import tag
from cove_dist.quantization import CascadedQuantizer, CodeUsage
from cove_dist.runs import LOG_FILE, read_records
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.codebooks import Codebooks, health
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import COVE, small_run

MANY = (*COVE, "quantizer.item_levels=[70,4]")  # of 80 items: some are always dead
REVIVAL = (*MANY, "quantizer.start=kmeans", "quantizer.kmeans_step=3", "quantizer.revive_every=4")


HERE = DistributedContext(rank=0, world_size=1, local_world_size=1, device=torch.device("cpu"))


def quantizer_on_points() -> CascadedQuantizer:
    """Codes at 0, 10, 20, 30 of level 1; at 5 and 30 of level 2."""
    quantizer = CascadedQuantizer(1, (4, 2))
    with torch.no_grad():
        quantizer.codebooks[0].copy_(torch.tensor([[0.0], [10.0], [20.0], [30.0]]))
        quantizer.codebooks[1].copy_(torch.tensor([[5.0], [30.0]]))
    return quantizer


def codebooks_of(quantizer: CascadedQuantizer, context: DistributedContext = HERE, **changes) -> Codebooks:
    config: QuantizerConfig = load_run_config(["data=synthetic", "quantizer=cove"])[0].quantizer
    optimizer = torch.optim.SGD(quantizer.parameters(), lr=0.1)
    return Codebooks({"item": quantizer}, replace(config, **changes), 0, context, optimizer)


def test_health_by_hand() -> None:
    quantizers = {"user": CascadedQuantizer(1, (2,)), "item": quantizer_on_points()}
    usage = CodeUsage(quantizers.values())
    quantizers["item"](torch.tensor([[0.1], [-3.0], [11.0], [9.0]]))
    quantizers["item"](torch.tensor([[21.0]]), counts=torch.tensor([4]))
    figures = health(quantizers, usage, usage.counts())
    assert figures.pop("perplexity_user_1") != figures.pop("dead_user_1")  # nan: it has not been used
    assert figures == {
        "perplexity_item_1": pytest.approx(4**0.25 * 4**0.25 * 2**0.5),  # 2, 2 and 4 of 8
        "dead_item_1": 0.25,
        "perplexity_item_2": pytest.approx(2),  # codes 0 and 1 are nearest to 5; 2 is nearest to 30
        "dead_item_2": 0,
    }


def test_metrics_of_an_epoch_are_reset_for_the_next(context: DistributedContext) -> None:
    quantizer = quantizer_on_points()
    codebooks = codebooks_of(quantizer, context)
    quantizer(torch.tensor([[0.0], [10.0], [20.0], [30.0]]))
    assert codebooks.close_epoch()["perplexity_item_1"] == pytest.approx(4)
    quantizer(torch.zeros(5, 1))
    state = codebooks.state_dict()
    figures = codebooks.close_epoch()
    assert (figures["perplexity_item_1"], figures["dead_item_1"]) == (pytest.approx(1), 0.75)

    other = quantizer_on_points()
    resumed = codebooks_of(other, context)
    resumed.load_state_dict(state)
    other(torch.full((5, 1), 10.0))
    assert resumed.close_epoch()["perplexity_item_1"] == pytest.approx(2)  # five of the state, five of its own


def test_a_collapsing_level_is_warned_of_once_until_it_has_risen_again(caplog: pytest.LogCaptureFixture) -> None:
    """Of 4 codes, the threshold 0.1 is at perplexity 1.3; of 2, at 1.1."""
    codebooks = codebooks_of(quantizer_on_points(), warn_perplexity=0.1)
    for level_1, level_2 in [(1.31, 1.2), (1.29, 1.2), (1.0, 1.2), (1.0, 1.09), (1.31, 1.0), (1.2, 1.0)]:
        codebooks.watch({"perplexity_item_1": level_1, "perplexity_item_2": level_2, "loss": 1.0})
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [message.split(":")[0] for message in warned] == [
        "item codebook, level 1",
        "item codebook, level 2",
        "item codebook, level 1",
    ]
    assert "perplexity 1.3 of 4 codes" in warned[0]


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({}, "Try quantizer.revive_every=50, or quantizer.start=kmeans, or fewer codes (quantizer.item_levels), or"),
        ({"start": "kmeans"}, "Try quantizer.revive_every=50, or fewer codes"),
        ({"revive_every": 9}, "Try quantizer.start=kmeans, or fewer codes"),
        ({"start": "kmeans", "revive_every": 9}, "Try fewer codes"),
    ],
)
def test_the_warning_names_remedies_that_are_not_in_use(
    caplog: pytest.LogCaptureFixture, changes: dict, remedy: str
) -> None:
    codebooks = codebooks_of(quantizer_on_points(), **{"kmeans_step": 1, **changes})
    codebooks.watch({"perplexity_item_1": 1.0})
    assert ("start" in changes) == (not caplog.records), "no warning of codes that k-means will replace"
    codebooks._step = 1
    codebooks.watch({"perplexity_item_1": 1.0})
    assert remedy in caplog.text
    assert "quantizer.warn_perplexity" in caplog.text


def test_no_warning_without_metrics_or_threshold(caplog: pytest.LogCaptureFixture) -> None:
    codebooks_of(quantizer_on_points()).watch({"loss": 1.0, "perplexity_item_1": float("nan")})
    codebooks_of(quantizer_on_points(), warn_perplexity=0.0).watch({"perplexity_item_1": 1.0})
    codebooks_of(CascadedQuantizer(1, (1,))).watch({"perplexity_item_1": 1.0})  # of one code it is no collapse
    assert not caplog.records


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
    assert revivals == {4, 8, 12, 16, 20}
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
    trainer.trainable.model.train()
    codebook = trainer.trainable.model.module.objective.quantizers["item"].codebooks[0]
    for _ in trainer.steps(iter(trainer.train_loader)):
        before = codebook.detach().clone()
        revived = trainer.codebooks.after_step(trainer.position.step).get("revived_item_1", 0)
        if revived:
            break
    moved = (codebook != before).any(dim=1)
    moments = trainer.trainable.optimizer.state[codebook]
    assert moved.sum() == revived > 0
    assert not moments["exp_avg"][moved].any()
    assert moments["exp_avg"][~moved].any()


def test_without_alpha_and_omega_moving_averages_and_revival_leave_the_base_model_to_the_bit(
    prepared: Path, context: DistributedContext, tmp_path: Path
) -> None:
    base = trained(prepared, context, tmp_path / "base")
    off = ("quantizer.alpha=0", "quantizer.omega_q=0", "quantizer.learning=ema")
    cove = trained(prepared, context, tmp_path / "cove", *REVIVAL, *off)
    assert cove.trainable.model.module.objective.quantizers["item"].observation is None
    losses = [
        [r["loss"] for r in read_records(tmp_path / name / LOG_FILE) if r["kind"] == "train"]
        for name in ("base", "cove")
    ]
    assert len(losses[0]) == 20
    assert losses[0] == losses[1]
    theirs = cove.trainable.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in base.trainable.model.state_dict().items())


def test_no_quantizers_have_no_records(prepared: Path, context: DistributedContext, tmp_path: Path) -> None:
    trained(prepared, context, tmp_path / "run", "trainer.epochs=1")
    assert {record["kind"] for record in read_records(tmp_path / "run" / LOG_FILE)} == {"train", "validation"}
