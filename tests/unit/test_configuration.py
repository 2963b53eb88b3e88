"""Composition and checks of configurations; every shipped YAML is composed and built."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf

from cove_dist.composition import check_arguments, compose_yaml, config_folder, load_run_config, target
from cove_dist.config import RunConfig
from cove_dist.embeddings.optimizers import fuse_optimizer
from cove_dist.embeddings.sharding import table_sharding
from cove_dist.errors import ConfigError
from cove_dist.tasks.base import TaskModel
from cove_dist.tasks.ctr import build_ctr_model
from cove_dist.training.tasks import task_of
from data_pipeline.schema import INPUT, OWNER, TARGET, Categorical, Dense, Schema


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


SCHEMA = Schema(
    name="x",
    label="label",
    categorical=(
        Categorical("user_id", 12, 10, "user"),
        Categorical("item_id", 9, 9, "item"),
        Categorical("weekday", 7, 7),
    ),
    dense=(Dense("age", 0.0, 1.0),),
    splits={},
)
IMPLICIT = Schema(
    name="z",
    label="label",
    categorical=SCHEMA.categorical[:2],
    dense=(),
    splits={},
    implicit=True,
    candidates=Categorical("candidates", 9, 9, "item", sequence=True, table="item_id"),
    attributes={"category": 4, "brand": 3},
)
LISTS = Schema(
    name="y",
    label=None,
    categorical=(
        Categorical(INPUT, 9, 8, "item", sequence=True, max_length=5),
        Categorical(TARGET, 9, 8, "item", sequence=True, max_length=6),
        Categorical(OWNER, 4, 3, "owner"),
    ),
    dense=(),
    splits={},
)


def build(config: RunConfig) -> TaskModel:
    schemas = {"ctr": SCHEMA, "cf": IMPLICIT, "lists": LISTS}
    return task_of(config).build_model(config, schemas[target(config.model, "model")[0].task])


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
    if target(section, "model")[0].task == "lists" and quantizer == "cove":
        with pytest.raises(ConfigError, match=r"lists have items alone .* allowed: null \(quantizer=cove_items\)"):
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
    model = {"cf": "bprmf", "lists": "sasrec"}.get(trainer, "deepfm")
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
    compose_yaml(name, [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.epoch=3", r"trainer\.epoch: unknown key; did you mean trainer\.epochs"),
        ("model=deepfn", r"model/deepfn.*Allowed: .*dcn, deepfm, dlrm"),
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


def test_a_sharded_table_without_a_fused_optimizer_is_refused_with_both_ways_out() -> None:
    config, _ = load_run_config(["embeddings.sharding.default=row_wise"])
    with pytest.raises(ConfigError, match=r"on cpu there is none.* adam.*default=data_parallel.*rowwise_adagrad"):
        config.embeddings.check_device("cpu")
    config.embeddings.check_device("cuda")
    decayed, _ = load_run_config(["embeddings.sharding.default=row_wise", "embeddings.optimizer.weight_decay=0.1"])
    with pytest.raises(ConfigError, match=r"weight_decay = 0\.1"):
        decayed.embeddings.check_device("cuda")


@pytest.mark.parametrize("name", ["sparse_adam", "sparse_rmsprop"])
def test_sparse_optimizers_are_refused_with_decay_of_all_rows_and_for_pooled_tables_on_cpu(name: str) -> None:
    overrides = [f"embeddings.optimizer.name={name}", "embeddings.optimizer.weight_decay=0.1"]
    refused = rf"weight_decay_rows = all: {name} changes only the rows .* weight_decay = 0\.1 allowed: looked_up"
    with pytest.raises(ConfigError, match=refused):
        load_run_config(overrides)
    decayed, _ = load_run_config([*overrides, "embeddings.optimizer.weight_decay_rows=looked_up"])
    decayed.embeddings.check_device("cpu")
    with pytest.raises(ConfigError, match=rf"weight_decay = 0\.1: on cuda {name} is a fused kernel.*allowed: 0, or"):
        decayed.embeddings.check_device("cuda")
    config, _ = load_run_config(overrides[:1])
    with pytest.raises(ConfigError, match=rf"{name}: on cpu for .* not for CTR"):
        fuse_optimizer(build(config).tables, config.embeddings, "cpu")


@pytest.mark.parametrize("name", ["adam", "adagrad", "rowwise_adagrad", "sgd"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_decay_of_looked_up_rows_has_no_fused_kernel(name: str, device: str) -> None:
    overrides = [
        f"embeddings.optimizer.name={name}",
        "embeddings.optimizer.weight_decay=0.1",
        "embeddings.optimizer.weight_decay_rows=looked_up",
    ]
    replicated, _ = load_run_config(overrides)
    replicated.embeddings.check_device(device)
    assert table_sharding(replicated.embeddings, "item_id", device) == "data_parallel"
    sharded, _ = load_run_config([*overrides, "embeddings.sharding.default=row_wise"])
    with pytest.raises(ConfigError, match=r"weight_decay = 0\.1.*default=data_parallel.*weight_decay=0"):
        sharded.embeddings.check_device(device)


def test_decay_by_which_sgd_would_turn_rows_around_is_refused() -> None:
    overrides = [
        "embeddings.optimizer.name=sgd",
        "embeddings.optimizer.learning_rate=0.5",
        "embeddings.optimizer.weight_decay_rows=looked_up",
    ]
    load_run_config([*overrides, "embeddings.optimizer.weight_decay=1.9"])
    with pytest.raises(ConfigError, match=r"weight_decay = 2\.0: must be below 1 / learning_rate = 2\.0"):
        load_run_config([*overrides, "embeddings.optimizer.weight_decay=2.0"])


def test_replicated_tables_of_a_sparse_optimizer_are_refused_on_cuda_where_nothing_would_train_them() -> None:
    overrides = ["embeddings.optimizer.name=sparse_adam", "+embeddings.sharding.item_id=data_parallel"]
    config, _ = load_run_config(overrides)
    config.embeddings.check_device("cpu")
    with pytest.raises(ConfigError, match=r"sharding\.item_id = data_parallel: on cuda sparse_adam .*allowed: auto"):
        config.embeddings.check_device("cuda")


def test_an_optimizer_of_the_cpu_alone_is_refused_on_cuda() -> None:
    config, _ = load_run_config(["embeddings.optimizer.name=sparse_rmsprop"])
    with pytest.raises(ConfigError, match=r"sparse_rmsprop: on cpu alone"):
        fuse_optimizer(build(config).tables, config.embeddings, "cuda")


def test_the_global_generator_alone_decides_the_initial_dense_weights() -> None:
    config, _ = load_run_config(["embeddings.dim=8", "quantizer=cove"])
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_ctr_model(config, SCHEMA).objective.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_an_override_that_does_not_parse_is_shown_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"common=\[data=toys\]: .*needs quotes"):
        compose_yaml("tune", ["common=[data=toys]"])
