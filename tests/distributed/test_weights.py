"""Sample weights on 1 and 2 real ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

from cove_dist.distributed import process_group
from cove_dist.losses.rows import mean_over_rows
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.evaluator import ctr_loader, score
from cove_dist.training.program import train
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.configurations import ROW_WISE, small_run
from tests.distributed.ranks import run_ranks
from tests.distributed.test_training import NO_DROPOUT, training_losses
from tests.unit.data.prepare_helpers import prepare_custom, some_rows, write_csv

LOSSES, WEIGHTS = np.arange(7.0), np.array([0.0, 3.0, 0.5, 2.0, 0.0, 8.0, 1.0])
CUTS = {1: [slice(0, 7)], 2: [slice(0, 2), slice(2, 7)]}  # uneven ranks


@pytest.fixture(scope="module")
def weighted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder of 1,200 rows whose weights go from 0 to 12."""
    folder = tmp_path_factory.mktemp("weighted")
    rows = [(*row, (13 * number) % 25 / 2) for number, row in enumerate(some_rows(users=30, per_user=40))]
    raw = write_csv(folder / "raw.csv", rows, ("user", "item", "label", "time", "importance"))
    prepare_custom(raw, folder / "out", weight="importance")
    return folder / "out"


def part_of_mean() -> float:
    with process_group("cpu") as context:
        rows = CUTS[context.world_size][context.rank]
        losses, weights = (torch.tensor(each[rows], dtype=torch.float32) for each in (LOSSES, WEIGHTS))
        share = len(losses) * context.world_size / len(LOSSES)  # `Batch.weight`
        return share * mean_over_rows(losses, weights).item()


def test_the_parts_of_ranks_average_to_the_weighted_mean_of_the_global_batch() -> None:
    expected = (LOSSES * WEIGHTS).sum() / WEIGHTS.sum()
    assert np.mean(run_ranks(2, part_of_mean)) == pytest.approx(expected, rel=1e-6)


def evaluated(overrides: list[str]) -> tuple[dict[str, float], np.ndarray]:
    """Weighted metrics of an untrained model, and the logit, label and weight of each row."""
    config, _ = load_run_config([*overrides, "evaluation.weighted=true", "embeddings.init_std=0.5"])
    schema = Schema.load(config.data.path)
    with process_group("cpu") as context:
        trainer = Trainer(config, schema, context)
        loader = ctr_loader(config, schema, "validation", context)
        rows = [
            (each.logits, each.batch.labels, each.batch.sample_weights)
            for each in score(trainer.train_state.model, loader, context.device)
        ]
        return trainer.evaluate(), torch.cat([torch.stack(row) for row in rows], dim=1).double().numpy()


def test_one_and_two_ranks_train_and_evaluate_alike(weighted: Path, tmp_path: Path) -> None:
    learning = (NO_DROPOUT, "trainer.optimizer.learning_rate=0.02", "trainer.epochs=1", *ROW_WISE)
    losses = {}
    for world_size in (1, 2):
        run_ranks(world_size, train, small_run(weighted, tmp_path / str(world_size), *learning))
        losses[world_size] = training_losses(tmp_path / str(world_size))
    assert losses[2] == pytest.approx(losses[1], rel=5e-5)

    ranks = run_ranks(2, evaluated, small_run(weighted, "unused", *ROW_WISE))
    logits, labels, weights = np.concatenate([rows for _, rows in ranks], axis=1)
    assert len(set(weights)) > 10
    for metrics, _ in ranks:
        assert metrics["auc"] == pytest.approx(roc_auc_score(labels, logits, sample_weight=weights), abs=1e-9)
        scores = 1 / (1 + np.exp(-logits))
        assert metrics["logloss"] == pytest.approx(log_loss(labels, scores, sample_weight=weights), rel=1e-6)
