"""The registered tasks and the files that configure them."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest

from cove_dist.config import RunConfig
from cove_dist.config.model_spec import ModelSpec
from cove_dist.config.yaml_files import read_yaml
from cove_dist.config_folders import config_folder
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.registry import TASKS, task_of
from tests.unit.configuration.schemas import SCHEMA, options


def test_every_task_has_its_files_and_no_other_task_has() -> None:
    assert sorted(TASKS) == options("task") == options("trainer")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_task_has_the_sections_that_its_file_configures(name: str) -> None:
    configured = set(read_yaml(config_folder() / "task" / f"{name}.yaml")) - {"evaluation", "embeddings"}
    assert configured == {each.name for each in fields(TASKS[name].config)} - {each.name for each in fields(RunConfig)}


@pytest.mark.parametrize("model", options("model"))
def test_every_model_is_of_a_registered_task(model: str) -> None:
    section = read_yaml(config_folder() / "model" / f"{model}.yaml")
    config, _ = load_run_config([f"model={model}"])
    assert config.model == ModelSpec.resolve(dict(section))
    assert task_of(config) is TASKS[config.model.kind.task]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["quantizer=cove", "quantizer.omega_c=0.5"], "not classified in the task ctr; allowed: 0"),
        (
            ["model=bprmf", "negatives.category_share=0.2", "negatives.category_codes=quantizer"],
            "items are not quantized; choose quantizer=negatives",
        ),
        (
            [
                "model=bprmf",
                "negatives.category_share=0.2",
                "negatives.category_codes=quantizer",
                "quantizer=cove",
                "negatives.category_level=2",
            ],
            r"category_level = 2: allowed: -2 to 1",
        ),
        (
            [
                "model=bprmf",
                "quantizer=cove",
                "quantizer.cascade=residual",
                "quantizer.item_levels=[8,8]",
                "negatives.category_share=0.2",
                "negatives.category_codes=quantizer",
            ],
            r"category_level = -1: with quantizer\.cascade = residual later levels .*; allowed: 0",
        ),
        (
            ["model=sasrec", "quantizer=cove_items", "quantizer.cascade=residual", "sequential.two_stage=true"],
            "cascade = residual: the last level's codes are no categories",
        ),
        (["model=sasrec", "quantizer=cove"], r"allowed: null \(quantizer=cove_items\)"),
    ],
)
def test_each_task_refuses_quantizer_settings_that_it_does_not_support(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config(overrides)


def test_the_trainer_of_another_task_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"trainer = cf: is for collaborative filtering; .* need trainer=ctr"):
        load_run_config(["model=deepfm", "trainer=cf"])
    assert load_run_config(["model=bprmf", "trainer=cf"])[0].trainer.batch_size == 1024


def test_a_loss_or_metric_of_another_task_is_refused_with_those_to_choose() -> None:
    for overrides, message in {
        ("model=bprmf", "loss=bce"): "BinaryCrossEntropy: does not fit .*; allowed: loss=bpr, loss=softmax, subclasses",
        ("loss=bpr",): "BPR: does not fit this run; allowed: loss=bce, loss=focal, subclasses",
        ("metric=precision",): "Precision: does not fit this run; allowed: metric=brier, subclasses",
        ("model=sasrec", "metric=brier"): "Brier: does not fit this run; allowed: metric=precision, subclasses",
    }.items():
        with pytest.raises(ConfigError, match=message):
            load_run_config(overrides)


def test_weights_that_may_be_too_large_are_named_by_key() -> None:
    config, _ = load_run_config(["model=bprmf", "interactions.neighbor_pull=900"])
    found = task_of(config).weights(config)
    assert {key: value for key, value in found.items() if value} == {"interactions.neighbor_pull": 900}


def test_a_task_without_neighbors_says_so() -> None:
    config, _ = load_run_config(["model=deepfm"])
    config = replace(config, warm_start=replace(config.warm_start, run="runs/x", new_rows="code"))
    with pytest.raises(ConfigError, match="the neighbors of users and items; the task ctr has none; allowed: random"):
        task_of(config).build_new_rows(config, SCHEMA, None, None, {})  # type: ignore[arg-type]


KMEANS = ("quantizer.start=kmeans", "quantizer.kmeans_step=21")
SHARE = "negatives.category_share=0.2"
WARM = "warm start"
NEXT_ITEM = ("model=sasrec", "trainer.warmup_steps=0", "sequential.softmax=sampled")
PARALLEL = ("model=fans", "trainer.warmup_steps=0")


@pytest.mark.parametrize(
    ("overrides", "late"),
    [
        (["model=deepfm", "trainer.warmup_steps=19"], []),
        (["model=deepfm", "trainer.warmup_steps=20"], ["trainer.warmup_steps = 20: .* such as trainer.warmup_steps=2"]),
        (["model=bprmf", "quantizer=cove", *KMEANS], [r"quantizer.kmeans_step = 21: .* 20 steps, .*kmeans_step=10"]),
        (["model=bprmf", "quantizer=cove", *KMEANS, "trainer.epochs=1"], ["kmeans_step=5 quantizer.kmeans_batches=5$"]),
        (["model=bprmf", "quantizer=cove", *KMEANS, WARM], []),
        (["model=bprmf", "quantizer=cove", "quantizer.revive_every=20"], []),
        (["model=bprmf", "quantizer=cove", "quantizer.revive_every=21"], [r"quantizer.revive_every = 21: .*_every=5"]),
        (["model=bprmf", SHARE], []),
        (["model=bprmf", SHARE, "trainer.max_steps=11"], []),
        (["model=bprmf", SHARE, "trainer.max_steps=10"], [r"category_share = 0.2: training has 10 steps, .* after 10"]),
        (["model=bprmf", SHARE, "trainer.epochs=1"], [r"negatives.category_share = 0.2: training has 10 steps"]),
        (["model=bprmf", SHARE, "trainer.epochs=1", WARM], []),
        ([*NEXT_ITEM, SHARE, "trainer.epochs=1"], ["negatives.category_share = 0.2"]),
        ([*PARALLEL, "sequential.curriculum_steps=20"], []),
        (
            [*PARALLEL, "sequential.curriculum_steps=21"],
            [r"sequential.curriculum_steps = 21: .*curriculum_steps=10"],
        ),
    ],
)
def test_settings_that_begin_to_act_after_the_last_step_are_warned_of(overrides: list[str], late: list[str]) -> None:
    """Two epochs of ten steps, if not said otherwise."""
    config, _ = load_run_config(["trainer.epochs=2", *(each for each in overrides if each != WARM)])
    if WARM in overrides:
        config = replace(config, warm_start=replace(config.warm_start, run="runs/before"))
    found = task_of(config).late_settings(config, 10)
    assert len(found) == len(late)
    for warning, expected in zip(found, late, strict=True):
        assert re.search(expected, warning)
