"""Data without a validation split: training runs to its last epoch, and its newest checkpoint stands for the best."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cove_dist.checkpoints.choice import find_checkpoint
from cove_dist.checkpoints.files import read_meta
from cove_dist.distributed import process_group
from cove_dist.inference.evaluate import evaluate_run
from cove_dist.tasks.configuration import load_run_config
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from cove_dist.warm_start.source import open_source
from data_pipeline.errors import DataError
from data_pipeline.schema import Schema
from tests.configurations import small_run
from tests.unit.data.prepare_helpers import NAMES, prepare_custom, some_rows, write_csv

EPOCHS = 3


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("given")
    rows = [(*row, "test" if row[3] > 15 else "train") for row in some_rows()]
    source = write_csv(folder / "raw.csv", rows, (*NAMES, "part"))
    prepare_custom(source, folder / "data", split_column="part")
    return folder / "data"


def overrides(data: Path, folder: Path) -> list[str]:
    return small_run(data, folder, f"trainer.epochs={EPOCHS}", "trainer.early_stopping.patience=1")


def test_all_epochs_are_trained_and_the_newest_checkpoint_is_evaluated(data: Path, tmp_path: Path, caplog) -> None:
    run = tmp_path / "run"
    train(overrides(data, run))
    config, _ = load_run_config(overrides(data, run))
    with caplog.at_level(logging.INFO):
        newest = find_checkpoint(run, config, "best")
    assert (read_meta(newest).progress["epoch"], read_meta(newest).metrics) == (EPOCHS, {})
    assert newest == find_checkpoint(run, config, "newest")
    assert f"taking the newest, {newest.name}" in caplog.text
    warm, _ = load_run_config([f"warm_start={run}", "warm_start.checkpoint=best", f"data={data}", "output=unused"])
    with process_group("cpu"):
        assert open_source(warm).checkpoint == newest
    assert "logloss" in evaluate_run([f"run={run}", "device=cpu"]).metrics
    with pytest.raises(DataError, match=r"split = validation: .* has no such split; allowed: train, test"):
        evaluate_run([f"run={run}", "device=cpu", "split=validation"])


def test_it_is_said_before_training(data: Path, caplog) -> None:
    config, _ = load_run_config(overrides(data, Path("unused")))
    with process_group("cpu") as context, caplog.at_level(logging.WARNING):
        Trainer(config, Schema.load(data), context)
    assert f"training runs all {EPOCHS} epochs without early stopping" in caplog.text
