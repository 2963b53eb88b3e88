"""What a warm start takes over from the run that it starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from cove_dist.errors import ConfigError
from cove_dist.from_python import overrides_of
from cove_dist.tasks.configuration import load_run_config


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with a configuration only: SASRec with codes and settings that are not the defaults."""
    given = ("data=aotm", "model=sasrec", "model.num_heads=2", "quantizer=cove_items", "quantizer.item_levels=[9,3]")
    _, composed = load_run_config([*given, "trainer.epochs=7", "seed=5", "trainer.max_steps=3", "output=x"])
    OmegaConf.save(composed, tmp_path / "config.yaml")
    return tmp_path


def test_settings_that_are_not_given_are_those_of_the_run(run: Path) -> None:
    config, _ = load_run_config([f"warm_start={run}", "trainer.epochs=2", "data=aotm", "data.path=d", "output=y"])
    assert config.model.name == "SASRec" and config.model.arguments["num_heads"] == 2
    assert config.quantizer.item_levels == (9, 3) and config.quantizer.user_levels is None
    assert (config.trainer.epochs, config.trainer.max_steps, config.seed, config.output) == (2, None, 5, "y")
    assert config.warm_start.run == str(run)


@pytest.mark.parametrize("from_python", [True, False])
def test_a_mapping_for_a_section_sets_its_keys_and_leaves_the_others_to_the_run(run: Path, from_python: bool) -> None:
    _, composed = load_run_config([f"warm_start={run}", "data=aotm", "embeddings.optimizer.name=sgd", "output=x"])
    former = run / "former"
    former.mkdir()
    OmegaConf.save(composed, former / "config.yaml")
    start = {"run": str(former), "gone": "keep"}
    given = overrides_of({"warm_start": start, "embeddings": {"optimizer": {"learning_rate": 0.5}}})
    words = [f"warm_start={{run: {former}, gone: keep}}", "embeddings={optimizer:{learning_rate:0.5}}"]
    config, _ = load_run_config([*(given if from_python else words), "data=aotm", "output=y"])
    assert (config.warm_start.run, config.warm_start.gone, config.warm_start.new_rows) == (
        str(former),
        "keep",
        "random",
    )
    assert config.model.name == "SASRec" and config.model.arguments["num_heads"] == 2
    assert config.quantizer.item_levels == (9, 3) and config.trainer.epochs == 7
    assert (config.embeddings.optimizer.name, config.embeddings.optimizer.learning_rate) == ("sgd", 0.5)


def test_a_mapping_for_a_section_has_known_keys() -> None:
    with pytest.raises(ConfigError, match=r"warm_start\.new_row: unknown key; did you mean warm_start\.new_rows"):
        load_run_config(["warm_start={new_row: mean}"])


def test_a_group_that_is_given_brings_its_own_settings(run: Path) -> None:
    config, _ = load_run_config([f"warm_start={run}", "data=aotm", "model=bert4rec", "quantizer=none"])
    assert config.model.name == "BERT4Rec" and config.model.arguments["num_heads"] != 2
    assert config.quantizer.levels() == {}
    assert config.seed == 5


def test_losses_metrics_and_loggers_are_those_of_the_run_and_its_profile_is_not(tmp_path: Path) -> None:
    chosen = ("loss=focal", "loss.gamma=3", "metric=[brier]", "logger=none", "trainer.profile.after=2")
    watched = ("trainer.early_stopping.metric=brier", "output=x")
    _, composed = load_run_config(["data=synthetic", "model=deepfm", *chosen, *watched])
    OmegaConf.save(composed, tmp_path / "config.yaml")
    start = [f"warm_start={tmp_path}", "data=synthetic", "output=y"]
    config, _ = load_run_config(start)
    assert config.loss == {"_target_": "cove_dist.losses.ctr.Focal", "gamma": 3}
    assert list(config.evaluation.metrics) == ["brier"] and config.trainer.early_stopping.metric == "brier"
    assert config.trainer.loggers == {} and config.trainer.profile.after is None
    config, _ = load_run_config([*start, "loss=bce", "logger=tensorboard"])
    assert config.loss == {"_target_": "cove_dist.losses.ctr.BinaryCrossEntropy"}
    assert list(config.trainer.loggers) == ["tensorboard"]


def test_a_warm_start_names_its_data(run: Path) -> None:
    with pytest.raises(ConfigError, match=r"give the data to train on, data=FOLDER \(the run had data/aotm\)"):
        load_run_config([f"warm_start={run}"])


def test_data_may_be_a_prepared_folder(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{}")
    config, _ = load_run_config([f"data={tmp_path}", "model=deepfm"])
    assert config.data.path == str(tmp_path)
    assert config.output.startswith(f"runs/{tmp_path.name}")


def test_settings_of_a_warm_start_without_one_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"new_rows = zero: would do nothing: acts with warm_start.run; allowed: ran"):
        load_run_config(["warm_start.new_rows=zero"])
    with pytest.raises(ConfigError, match=r"warm_start.run = no/where: no config.yaml there"):
        load_run_config(["warm_start=no/where"])
