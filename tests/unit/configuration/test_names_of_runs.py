"""What a run is called, and what is trained, where groups are chosen and exchanged."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import check_run_config, load_run_config


@pytest.mark.parametrize(
    ("overrides", "output"),
    [
        ([], "runs/movielens_100k_deepfm_seed0"),
        (["data=toys", "model=bprmf", "quantizer=cove"], "runs/toys_cove_bprmf_seed0"),
        (["data=aotm", "model=sasrec", "quantizer=cove_items", "seed=3"], "runs/aotm_cove_items_sasrec_seed3"),
        (["quantizer=cove", "quantizer.item_levels=null"], "runs/movielens_100k_cove_users_deepfm_seed0"),
        (["data.path=data/mine"], "runs/mine_deepfm_seed0"),
        (["experiment=toys_cove_bprmf"], "runs/toys_cove_bprmf"),
        (["experiment=toys_cove_bprmf", "trainer.epochs=3"], "runs/toys_cove_bprmf"),
        (["experiment=toys_cove_bprmf", "model=neumf"], "runs/toys_cove_neumf_seed0"),
        (["experiment=toys_cove_bprmf", "quantizer=none"], "runs/toys_bprmf_seed0"),
        (["experiment=toys_cove_bprmf", "seed=1"], "runs/toys_cove_bprmf_seed1"),
        (["experiment=toys_cove_bprmf", "seed=1", "output=runs/mine"], "runs/mine"),
    ],
)
def test_the_folder_is_named_by_data_quantizer_model_and_seed(overrides: list[str], output: str) -> None:
    config, composed = load_run_config(overrides)
    assert config.output == composed.output == output


@pytest.mark.parametrize(
    ("model", "metric", "batch_size"),
    [("deepfm", "auc", 5000), ("bprmf", "ndcg@10", 1024), ("sasrec", "ndcg@10", 256)],
)
def test_a_model_chooses_the_trainer_of_its_task(model: str, metric: str, batch_size: int) -> None:
    trainer = load_run_config([f"model={model}"])[0].trainer
    assert (trainer.early_stopping.metric, trainer.batch_size) == (metric, batch_size)


def test_no_trainer_is_that_of_the_task() -> None:
    assert load_run_config(["trainer=null"])[0].trainer.early_stopping.metric == "auc"


@pytest.mark.parametrize(
    "experiment", ["aotm_cove_fans", "aotm_cove_bert4rec", "toys_cove_neumf", "movielens_cove_dcn"]
)
def test_an_experiment_without_its_quantizer_is_the_base_model(experiment: str) -> None:
    config, _ = load_run_config([f"experiment={experiment}", "quantizer=none"])
    base, _ = load_run_config([f"experiment={experiment.replace('_cove', '')}"])
    assert config.quantizer.levels() == {}
    assert config.quantizer == base.quantizer
    assert (config.model, config.trainer, config.embeddings) == (base.model, base.trainer, base.embeddings)


def test_an_experiment_with_a_model_of_another_task_has_the_trainer_of_that_task() -> None:
    config, _ = load_run_config(["experiment=toys_bprmf", "model=sasrec"])
    assert config.trainer.batch_size == 256


@pytest.mark.parametrize(
    ("removed", "added", "message"),
    [
        ("timeout_seconds", {}, r"^trainer\.timeout_seconds: missing$"),
        (None, {"lists": {"two_stage": False}}, r"^lists: unknown key; allowed: data, model, "),
    ],
)
def test_a_saved_configuration_with_other_keys_is_refused_by_name(
    removed: str | None, added: dict[str, object], message: str
) -> None:
    values = OmegaConf.to_container(load_run_config(["model=sasrec"])[1])
    values["trainer"].pop(removed, None)
    with pytest.raises(ConfigError, match=message):
        check_run_config(OmegaConf.create(values | added))
