"""Every shipped YAML file is composed, checked and built."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
from omegaconf import OmegaConf

from cove_dist.commands.print_config import printed
from cove_dist.config import QuantizerConfig
from cove_dist.config.checks import check, check_arguments, target
from cove_dist.config.composition import compose_yaml
from cove_dist.config.yaml_files import plain
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import compose_run_config, load_run_config
from cove_dist.tasks.registry import task_of
from tests.unit.configuration.schemas import build, options


@cache
def shipped_quantizer(name: str) -> QuantizerConfig:
    return check(QuantizerConfig, plain(compose_run_config([f"quantizer={name}"]).quantizer))


@pytest.mark.parametrize("model", options("model"))
def test_every_model_is_built_with_every_quantizer(model: str) -> None:
    base, _ = load_run_config([f"model={model}", "embeddings.dim=8", "trainer.early_stopping.metric=ndcg@10"])
    task = task_of(base)
    for name in options("quantizer"):
        config = replace(base, quantizer=shipped_quantizer(name))
        if task.name != "sequential" and name == "cove_aotm":
            with pytest.raises(ConfigError, match=r"quantizer\.omega_c = 1\.0: codes are not classified in the task"):
                task.check(config)
        elif task.name == "sequential" and name == "cove":
            with pytest.raises(ConfigError, match=r"quantize items only; allowed: null \(quantizer=cove_items\)"):
                task.check(config)
        else:
            task.check(config)
            assert set(build(config).objective.quantizers) == set(config.quantizer.levels())


@pytest.mark.parametrize("experiment", options("experiment"))
def test_every_experiment_is_built(experiment: str) -> None:
    config, _ = load_run_config([f"experiment={experiment}"])
    assert config.output == f"runs/{experiment}"
    build(config)


@pytest.mark.parametrize("trainer", options("trainer"))
def test_every_trainer_is_composed(trainer: str) -> None:
    model = {"cf": "bprmf", "sequential": "sasrec"}.get(trainer, "deepfm")
    load_run_config([f"trainer={trainer}", f"model={model}"])


@pytest.mark.parametrize("data", options("data"))
def test_every_data_set_is_built(data: str) -> None:
    section = OmegaConf.to_container(compose_yaml("prepare", [f"data={data}"]))["data"]
    dataset, arguments = target(section, "data")
    assert arguments.pop("name") == data
    assert arguments.pop("path") == f"data/{data}"
    dataset(**check_arguments(dataset, arguments, "data"))


@pytest.mark.parametrize("name", options("."))
def test_every_primary_file_is_composed(name: str) -> None:
    printed(name, [])
