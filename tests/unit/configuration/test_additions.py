"""What it takes to add a head, a metric, a task and a setting: the examples of ``tests/added`` touch no other file."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from fnmatch import fnmatchcase
from itertools import islice
from pathlib import Path

import pytest
import torch
import yaml
from omegaconf import OmegaConf

import cove_dist
from cove_dist.config import QuantizerConfig
from cove_dist.config.overrides import flat
from cove_dist.config_folders import OWN_FOLDERS
from cove_dist.distributed import process_group
from cove_dist.errors import ConfigError
from cove_dist.evaluation.classification import SAMPLE_METRICS
from cove_dist.quantization import UpkeepSettings
from cove_dist.tasks.configuration import compose_run_config, load_run_config
from cove_dist.tasks.ctr.evaluator import ctr_loader, score
from cove_dist.tasks.keys import foreign_keys
from cove_dist.tasks.loaders import evaluation_loader
from cove_dist.tasks.registry import TASKS
from cove_dist.training.trainer import Trainer
from data_pipeline.schema import Schema
from tests.added.metric import BrierScore
from tests.added.rating.task import RatingTask
from tests.configurations import COVE, small_run

PACKAGE = Path(cove_dist.__file__).parent
ADDED = Path(__file__).parents[2] / "added"
SECTIONS = ("trainer.", "quantizer.")


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
        scored = [each[:2] for each in score(trainer.trainable.model, loader, torch.device("cpu"))]
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


def test_a_setting_of_the_quantizer_is_passed_on_only_by_its_section() -> None:
    """So it is a field and a name in ``config/quantizer.py``, a line of YAML, and what the quantizer does with it."""
    config, _ = load_run_config(["quantizer=cove"])
    arguments, upkeep = config.quantizer.arguments(), config.quantizer.upkeep()
    nodes = list(ast.walk(ast.parse((PACKAGE / "tasks/quantizers.py").read_text())))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    named |= {node.arg for node in nodes if isinstance(node, ast.keyword)}
    assert named & arguments.keys() == set()
    assert upkeep.keys() | {"seed"} == {each.name for each in fields(UpkeepSettings)}
    written = yaml.safe_load((PACKAGE.parent / "configs/quantizer/cove.yaml").read_text())
    assert written.keys() == {each.name for each in fields(QuantizerConfig)} > arguments.keys() | upkeep.keys()


def test_a_setting_of_the_trainer_is_declared_by_its_section_and_its_yaml_file() -> None:
    """Whether a resumed run may change it is said there too: no other module lists keys of these sections."""
    keys = [key for key in flat(OmegaConf.to_container(compose_run_config([]))) if key.startswith(SECTIONS)]
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        nodes = ast.walk(ast.parse(path.read_text()))
        texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        listed = {key for key in keys for text in texts if text.startswith(SECTIONS) and fnmatchcase(key, text)}
        if listed and not name.startswith("config/"):
            found[name] = listed
    assert found == {
        "experiments/cells.py": {"trainer.early_stopping.mode"},  # changes nothing that a run computes
        "tasks/configuration.py": {"quantizer.user_levels", "quantizer.item_levels"},  # parts of a run's default name
        "tasks/inheritance.py": {
            "trainer.checkpoint.resume",
            "trainer.debug",
            "trainer.device",
            "trainer.max_steps",
        },  # not of a warm start's run
        "planning/request.py": {"trainer.device"},  # the planned device is a setting of `cove plan`
        "training/resume.py": {"trainer.checkpoint.resume"},  # says how this start was asked for
        "warm_start/source.py": {"trainer.optimizer.name"},  # says whose moments fit
    }
