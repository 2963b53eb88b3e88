"""A wrong setting is refused in one message, which names the key, the value and what is allowed."""

from __future__ import annotations

import pytest

from cove_dist.config.composition import compose_yaml
from cove_dist.errors import ConfigError
from cove_dist.tasks.configuration import load_run_config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.epoch=3", r"trainer\.epoch: unknown key; did you mean trainer\.epochs"),
        ("model=deepfn", r"model/deepfn.*Allowed: .*dcn, deepfm, din, dlrm"),
        ("data=nope", r"data/nope.*Allowed: .*aotm, custom.*; or the folder of prepared data$"),
        ("trainer.batch_size=-1", r"trainer\.batch_size = -1: input should be greater than 0"),
        ("trainer.batch_size=many", r"trainer\.batch_size = many: input should be a valid integer"),
        ("quantizer.alpha=1.5", r"quantizer\.alpha = 1\.5: input should be less than or equal to 1"),
        ("quantizer.item_levels=[10,100]", r"quantizer\.item_levels = \[10, 100\]: allowed are strictly falling sizes"),
        ("quantizer.user_levels=[]", r"quantizer\.user_levels = \[\]: allowed are strictly falling sizes"),
        ("quantizer.loss_reduction=max", r"quantizer\.loss_reduction = max: input should be 'mean' or 'sum'"),
        ("embeddings.dim=6", r"embeddings\.dim = 6: allowed are multiples of 4"),
        ("embeddings.sharding.default=rowwise", r"embeddings\.sharding\.default = rowwise: .*'row_wise'"),
        ("~embeddings.sharding.default", r"embeddings\.sharding: needs the key 'default'"),
        ("trainer.optimizer.name=rowwise_adagrad", r"trainer\.optimizer\.name = rowwise_adagrad: is for tables only"),
        ("trainer.optimizer.name=sparse_adam", r"trainer\.optimizer\.name = sparse_adam: is for tables only"),
        ("trainer.early_stopping.metric=acu", r"trainer\.early_stopping\.metric = acu: allowed are auc, .*ndcg@5"),
        ("model.dropout=1.0", r"model\.dropout = 1\.0: input should be less than 1"),
        ("model.hidden_units=[64,0]", r"model\.hidden_units\.1 = 0: input should be greater than 0"),
        ("+model.layers=3", r"model\.layers: unknown key; allowed: hidden_units, dropout"),
        ("trainer=3", "trainer/3'.* Allowed: .*ctr"),
        (
            "model.hidden_units.a=3",
            r"hidden_units\.a: model\.hidden_units is a list.*: model\.hidden_units=",
        ),
        ("model.hidden_units.9=3", r"hidden_units\.9: model\.hidden_units is a list"),
        ("embeddings.sharding.item_id=row_wise", r"plus before it: \+embeddings\.sharding\.item_id="),
        ("embeddings.sharding={item_id: row_wise}", r"plus before it: \+embeddings\.sharding\.item_id="),
        ("trainer.schedule.epochs=3", r"schedule\.epochs = 3: would do nothing: .*; allowed: null"),
        ("model._target_=cove_dist.models.ctr.deepfm.Deep", r"model\._target_ = .*Deep: not a class"),
    ],
)
def test_a_wrong_setting_names_the_key_the_value_and_what_is_allowed(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_run_config([override])


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        load_run_config(["trainer.epochs=0", "quantizer.beta=-1"])
    assert len(str(error.value).splitlines()) == 2


def test_debug_mode_excludes_resuming() -> None:
    with pytest.raises(ConfigError, match=r"trainer\.checkpoint\.resume = auto: not with debug"):
        load_run_config(["trainer.debug=true", "trainer.checkpoint.resume=auto"])


def test_the_global_batch_must_divide_among_ranks() -> None:
    config, _ = load_run_config(["trainer.batch_size=5000"])
    assert config.trainer.rank_batch_size(4) == 1250
    with pytest.raises(
        ConfigError, match=r"trainer\.batch_size = 5000: .*divisible by the 3 ranks; nearest allowed: 4998"
    ):
        config.trainer.rank_batch_size(3)


def test_an_override_that_does_not_parse_is_shown_with_what_to_do() -> None:
    with pytest.raises(
        ConfigError, match=r"common=\[data=toys\]: .*Quote values that contain '=', spaces or letters beyond ASCII"
    ):
        compose_yaml("tune", ["common=[data=toys]"])


def test_no_logger_next_to_a_logger_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"logger = \[none,tensorboard\]: none stands for no logger"):
        load_run_config(["data=synthetic", "model=deepfm", "logger=[none,tensorboard]"])


def test_a_setting_of_two_other_tasks_names_both() -> None:
    with pytest.raises(ConfigError, match=r"category_share: is a setting of .*collaborative.* and .*sequential.* only"):
        load_run_config(["data=synthetic", "model=deepfm", "negatives.category_share=0.2"])
