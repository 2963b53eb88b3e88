"""What an optimizer of tables, their sharding and the device allow of each other."""

from __future__ import annotations

import pytest
import torch

from cove_dist.embeddings.optimizers import fuse_optimizer
from cove_dist.embeddings.sharding import table_sharding
from cove_dist.errors import ConfigError
from cove_dist.inference.checkpoints import read_only
from cove_dist.tasks.configuration import load_run_config
from cove_dist.tasks.ctr.model import build_ctr_model
from tests.unit.configuration.schemas import SCHEMA, build


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


def test_an_optimizer_for_the_cpu_is_refused_on_cuda() -> None:
    config, _ = load_run_config(["embeddings.optimizer.name=sparse_rmsprop"])
    with pytest.raises(ConfigError, match=r"sparse_rmsprop: on cpu only"):
        fuse_optimizer(build(config).tables, config.embeddings, "cuda")


def test_only_the_global_generator_decides_the_initial_dense_weights() -> None:
    config, _ = load_run_config(["embeddings.dim=8", "quantizer=cove"])
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(build_ctr_model(config, SCHEMA).objective.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.gradient_clip_norm=1", "trainer.accumulate_steps=4"],
        ["embeddings.optimizer.name=sparse_rmsprop"],
        ["embeddings.optimizer.name=sparse_adam", "embeddings.sharding.default=data_parallel"],
        ["embeddings.optimizer.name=sparse_adam", "embeddings.optimizer.weight_decay=0.1",
         "embeddings.optimizer.weight_decay_rows=looked_up"],
        ["embeddings.optimizer.weight_decay=0.1", "embeddings.optimizer.weight_decay_frequency_power=0.6"],
        ["embeddings.sharding.default=row_wise"],
        ["embeddings.sharding.default=grid_shard"],
        ["+embeddings.sharding.item_id=table_row_wise", "embeddings.cache_load_factor=0.2"],
        ["quantizer=cove", "quantizer.search=triton_tf32x3"],
        ["quantizer=cove", "quantizer.search=faiss"],
    ],
    ids=lambda overrides: overrides[0].removeprefix("embeddings."),
)  # fmt: skip
def test_tables_that_are_only_read_are_accepted_by_every_device(overrides: list[str], device: str) -> None:
    config, _ = load_run_config(overrides)
    read = read_only(config, device)
    read.embeddings.check_device(device)
    read.quantizer.check_device(device)
    fuse_optimizer(build(read).tables, read.embeddings, device)
    assert read.trainer.gradient_clip_norm is None
    assert read.trainer.accumulate_steps == 1


def test_tables_that_are_only_read_keep_their_sharding_where_the_device_has_it() -> None:
    config, _ = load_run_config(["embeddings.sharding.default=row_wise", "+embeddings.sharding.user_id=grid_shard"])
    assert config.embeddings.read_only("cuda").sharding == {"default": "row_wise", "user_id": "grid_shard"}
    assert config.embeddings.read_only("cpu").sharding == {"default": "row_wise", "user_id": "auto"}
    replicated, _ = load_run_config([])  # by Adam, which has no fused kernel on CPU
    assert replicated.embeddings.read_only("cpu").sharding["default"] == "data_parallel"
    assert replicated.embeddings.read_only("cuda").sharding["default"] == "auto"
