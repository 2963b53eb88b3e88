"""Plans and shards of rank 3 of 8, without processes."""

from __future__ import annotations

import pytest
import torch
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.types import EmbeddingModuleShardingPlan

from cove_dist.config import EmbeddingsConfig, TableOptimizerConfig
from cove_dist.distributed import DistributedContext
from cove_dist.embeddings.fields import build_field_tables
from cove_dist.embeddings.optimizers import fuse_optimizer
from cove_dist.embeddings.sharding import plan_tables, sharders
from cove_dist.embeddings.tables import FIRST_ORDER_DIM, bag_columns, build_unpooled
from cove_dist.errors import ConfigError
from data_pipeline.schema import Categorical, Schema
from tests.mocked.conftest import RANK, WORLD_SIZE

DIM, USERS, ITEMS = 64, 1000, 200
SCHEMA = Schema(
    name="x",
    label="label",
    categorical=(
        Categorical("user_id", USERS, USERS - 1, "user"),
        Categorical("item_id", ITEMS, ITEMS - 1, "item"),
        Categorical("history", ITEMS, ITEMS - 1, "item", sequence=True, table="item_id"),
    ),
    dense=(),
    splits={},
)


class Tables(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bags = build_field_tables(bag_columns(SCHEMA), DIM, first_order=True)
        self.sequences = build_unpooled([column for column in SCHEMA.categorical if column.sequence], DIM)


def embeddings(optimizer: str = "rowwise_adagrad", **sharding: str) -> EmbeddingsConfig:
    return EmbeddingsConfig(
        dim=DIM,
        init_std=0.1,
        id_dropout=0.0,
        unseen="row",
        optimizer=TableOptimizerConfig(optimizer, 0.1, 0.0, "all", 0.0),
        sharding={"default": "auto", **sharding},
    )


def plan(model: Tables, config: EmbeddingsConfig, module: str = "bags") -> EmbeddingModuleShardingPlan:
    names = [table.name for table in model.bags.embedding_bag_configs()]
    planned = plan_tables(
        model,
        names,
        config,
        device_type="cpu",
        world_size=WORLD_SIZE,
        local_world_size=WORLD_SIZE,
        batch_size=64,
    )
    return planned.plan[module]


def test_each_table_is_sharded_as_configured() -> None:
    planned = plan(Tables(), embeddings(user_id="row_wise", item_id="column_wise"))
    assert planned["user_id"].sharding_type == "row_wise"
    assert planned["user_id_first_order"].sharding_type == "row_wise"
    assert planned["item_id"].sharding_type == "column_wise"
    assert planned["item_id_first_order"].sharding_type == "table_wise"
    assert planned["user_id"].compute_kernel == "fused"


def test_auto_is_replicated_where_the_optimizer_has_no_fused_kernel() -> None:
    planned = plan(Tables(), embeddings("adam"))
    assert {table.sharding_type for table in planned.values()} == {"data_parallel"}
    assert {table.compute_kernel for table in planned.values()} == {"dense"}


def test_auto_shards_where_it_has() -> None:
    planned = plan(Tables(), embeddings())
    assert "data_parallel" not in {table.sharding_type for table in planned.values()}


def test_a_rule_for_a_table_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"embeddings.sharding.usr_id: no such table; allowed: .*user_id"):
        plan(Tables(), embeddings(usr_id="row_wise"))


def test_a_table_that_fits_nowhere_is_refused() -> None:
    huge = Categorical("user_id", 2**40, 2**40, "user")
    model = Tables()
    model.bags = build_field_tables([huge], DIM, first_order=False)
    with pytest.raises(ConfigError, match="no placement fits"):
        plan(model, embeddings(default="table_wise"))


@pytest.mark.parametrize("sharding", ["row_wise", "column_wise", "table_wise"])
def test_this_rank_holds_the_shards_that_the_plan_gives_it(fake_rank: DistributedContext, sharding: str) -> None:
    model, config = Tables(), embeddings(default=sharding)
    del model.sequences  # a sharded EmbeddingCollection gathers its metadata from the other ranks
    fuse_optimizer(model.bags, config, "cpu")
    planned = plan_tables(
        model,
        [table.name for table in model.bags.embedding_bag_configs()],
        config,
        device_type="cpu",
        world_size=WORLD_SIZE,
        local_world_size=WORLD_SIZE,
        batch_size=64,
    )
    sharded = DistributedModelParallel(model, plan=planned, sharders=sharders(), init_data_parallel=False)
    held = sorted(
        (config.name, tuple(config.local_metadata.shard_offsets), tuple(weight.shape))
        for lookup in sharded.module.bags._lookups
        for kernel in lookup._emb_modules
        for config, weight in zip(kernel.config.embedding_tables, kernel.split_embedding_weights(), strict=True)
    )
    expected = sorted(
        (name, tuple(shard.shard_offsets), tuple(shard.shard_sizes))
        for name, parameter in planned.plan["bags"].items()
        for shard in parameter.sharding_spec.shards
        if shard.placement.rank() == RANK
    )
    assert held == expected
    if sharding == "row_wise":
        rows = USERS // WORLD_SIZE
        assert ("user_id", (RANK * rows, 0), (rows, DIM)) in held


def test_histories_are_sharded_like_the_bags() -> None:
    planned = plan(Tables(), embeddings(item_id="row_wise"), module="sequences")
    assert planned["item_id"].sharding_type == "row_wise"


def test_first_order_tables_have_one_scalar_per_id() -> None:
    tables = {table.name: table for table in Tables().bags.embedding_bag_configs()}
    assert tables["user_id_first_order"].embedding_dim == FIRST_ORDER_DIM
    assert tables["user_id_first_order"].num_embeddings == tables["user_id"].num_embeddings == USERS
