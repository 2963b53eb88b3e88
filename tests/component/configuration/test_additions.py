"""What it takes to add a head, a metric and a task: the examples of ``tests/added`` touch no other file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import pytest
import torch

from cove_dist.config_folders import OWN_FOLDERS
from cove_dist.distributed import process_group
from cove_dist.errors import ConfigError
from cove_dist.evaluation.classification import SAMPLE_METRICS
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.evaluator import ctr_loader, score
from cove_dist.tasks.keys import foreign_keys
from cove_dist.tasks.loaders import evaluation_loader
from cove_dist.tasks.registry import TASKS
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.added.metric import BrierScore
from tests.added.rating.task import RatingTask
from tests.configurations import COVE, small_run

ADDED = Path(__file__).parents[2] / "added"


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The YAML files of ``tests/added``, its metric, and the line of its task in the registry."""
    monkeypatch.setenv(OWN_FOLDERS, str(ADDED / "configs"))
    monkeypatch.setitem(TASKS, RatingTask.name, RatingTask())
    SAMPLE_METRICS.append(BrierScore)
    foreign_keys.cache_clear()
    yield
    SAMPLE_METRICS.remove(BrierScore)
    foreign_keys.cache_clear()


def run_on(prepared: Path) -> list[str]:
    """The overrides of a small run, without those of its model."""
    return [override for override in small_run(prepared) if not override.startswith("model.")]


@contextmanager
def training(prepared: Path, *overrides: str) -> Iterator[Trainer]:
    """A trainer after two steps, in a process group."""
    config, _ = load_run_config([*run_on(prepared), *overrides])
    with process_group("cpu") as context:
        trainer = Trainer(config, Schema.load(prepared), context)
        assert len(list(islice(trainer.steps(iter(trainer.train_loader)), 2))) == 2
        yield trainer


def test_a_head_is_a_class_and_a_yaml_file(added: None, prepared: Path) -> None:
    with training(prepared, "model=logistic", "model.dropout=0.1", *COVE) as trainer:
        assert 0 < trainer.evaluate()["auc"] < 1
    with pytest.raises(ConfigError, match=r"model\.dropout = 1\.5: .*less than 1"):
        load_run_config([*run_on(prepared), "model=logistic", "model.dropout=1.5"])


def test_a_metric_is_a_class(added: None, prepared: Path) -> None:
    """Early stopping may watch it, in its own direction, and its value is that of its formula."""
    watched = ("model=logistic", "trainer.early_stopping.metric=brier")
    with training(prepared, *watched) as trainer:
        value = trainer.evaluate()["brier"]
        loader = ctr_loader(trainer.config, trainer.schema, "validation", trainer.context)
        scored = [each[:2] for each in score(trainer.train_state.model, loader, torch.device("cpu"))]
    logits = torch.cat([logits for _, logits in scored]).double()
    labels = torch.cat([batch.labels for batch, _ in scored]).double()
    assert value == pytest.approx(((1 / (1 + torch.exp(-logits)) - labels) ** 2).mean().item(), abs=1e-12)
    with pytest.raises(ConfigError, match="mode = max: a smaller brier is better"):
        load_run_config([*run_on(prepared), *watched, "trainer.early_stopping.mode=max"])


def test_a_task_is_two_modules_two_yaml_files_and_a_line_in_the_registry(added: None, prepared: Path) -> None:
    modules = [path for path in (ADDED / "rating").glob("*.py") if path.name != "__init__.py"]
    assert len([*modules, *ADDED.glob("configs/t*/rating.yaml"), "registry.py"]) == 5
    with training(prepared, "model=rating_dot", "model.mean=0", "rating.scale=2", *COVE) as trainer:
        assert type(trainer.config) is RatingTask.config
        loader = evaluation_loader(trainer.config, trainer.schema, "validation", trainer.context)
        spread = (
            torch.cat([batch.labels for batch in loader]).square().mean().item()
        )  # the error of predicting 0, which small embeddings nearly do
        assert trainer.evaluate() == {"mse": pytest.approx(spread, rel=0.05)}
    refused = {
        ("model=rating_dot", "rating.scale=0"): r"rating\.scale = 0: input should be greater than 0",
        (
            "model=rating_dot",
            "negatives.count=3",
        ): "negatives.count: is a setting of collaborative filtering only; the mo",
        (
            "model=deepfm",
            "rating.scale=2",
        ): "rating.scale: is a setting of rating prediction only; the model of this run",
        ("model=rating_dot", "trainer.early_stopping.metric=auc"): r"metric = auc: allowed are mse \(the task rating\)",
        ("model=rating_dot", "quantizer=cove", "quantizer.omega_c=1"): "codes are not classified in the task rating",
    }
    for overrides, message in refused.items():
        with pytest.raises(ConfigError, match=message):
            load_run_config(overrides)
