"""Click-through rate models on columns of lists: the same losses on one and on two ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cove_dist.training.program import train
from tests.clicks_with_lists import prepare_clicks
from tests.configurations import COVE, ROW_WISE, small_run
from tests.distributed.ranks import run_ranks
from tests.distributed.test_training import training_losses

FAST = ("trainer.optimizer.learning_rate=0.02", "embeddings.optimizer.learning_rate=0.05", "trainer.epochs=1")
MAXIMA = ("embeddings.pooling.default=max", "+embeddings.pooling.before=mean")


@pytest.fixture(scope="module")
def clicks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare_clicks(tmp_path_factory.mktemp("clicks"), rows=1203)


@pytest.mark.parametrize(
    "chosen",
    [
        (*MAXIMA, *ROW_WISE, *COVE),
        ("embeddings.pooling.default=sum", *ROW_WISE),
        ("model=din", "model.attention_units=[5]", "embeddings.id_dropout=0.1", *ROW_WISE, *COVE),
    ],
    ids=["max and quantized mean", "sum", "din and cove"],
)
def test_one_and_two_ranks_have_the_same_losses(clicks: Path, tmp_path: Path, chosen: tuple[str, ...]) -> None:
    """Every step has lists of other lengths on every rank; the last step has fewer rows."""
    losses = {}
    for ranks in (1, 2):
        folder, further = tmp_path / str(ranks), ("embeddings.init_std=0.3", "trainer.batch_size=98")
        overrides = small_run(clicks, folder, "model.dropout=0", *FAST, *further, *chosen)
        run_ranks(ranks, train, [o.replace("data=synthetic", "data=custom") for o in overrides])
        losses[ranks] = training_losses(folder)
        metrics = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()][-1]
        losses[f"auc of {ranks}"] = [metrics["auc"]]
    assert len(losses[1]) == 10
    assert losses[2] == pytest.approx(losses[1], rel=5e-5)
    assert losses["auc of 2"] == pytest.approx(losses["auc of 1"], abs=1e-6)
