"""Every shipped YAML file is composed, checked and built."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from cove_dist.commands.settings import printed
from cove_dist.config.checks import check_arguments, target
from cove_dist.config.composition import compose_yaml, config_folder
from cove_dist.config.model_spec import model_class
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config
from tests.unit.configuration.schemas import build, options


@pytest.mark.parametrize("quantizer", options("quantizer"))
@pytest.mark.parametrize("model", options("model"))
def test_every_model_is_built_with_every_quantizer(model: str, quantizer: str) -> None:
    overrides = [
        f"model={model}",
        f"quantizer={quantizer}",
        "embeddings.dim=8",
        "trainer.early_stopping.metric=ndcg@10",
    ]
    section = OmegaConf.to_container(OmegaConf.load(config_folder() / "model" / f"{model}.yaml"))
    task = model_class(section).task
    if task != "sequential" and quantizer == "cove_aotm":
        with pytest.raises(ConfigError, match=r"quantizer\.omega_c = 1\.0: codes are not classified in the task"):
            load_run_config(overrides)
        return
    if task == "sequential" and quantizer == "cove":
        with pytest.raises(ConfigError, match=r"quantize items only; allowed: null \(quantizer=cove_items\)"):
            load_run_config(overrides)
        return
    config, _ = load_run_config(overrides)
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
